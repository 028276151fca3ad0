//! Formats of image files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a file holds a disk. It is declared by whoever brings the file, and never found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// Byte by byte.
    #[default]
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3, one file.
    Qcow2,
}

/// A text that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format; there are raw and qcow2")]
pub struct ImageFormatError(pub String);

impl ImageFormat {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format of a word, or nothing when the word is unknown.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2].into_iter().find(|format| format.as_str() == word)
    }
}

impl FromStr for ImageFormat {
    type Err = ImageFormatError;

    fn from_str(text: &str) -> Result<Self, ImageFormatError> {
        Self::from_word(text).ok_or_else(|| ImageFormatError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}
