//! Sizes in bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. In JSON a plain number; in text also with a binary suffix: `512`, `64K`, `8G`, `2T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size in bytes such as 4096, 64K or 8G (powers of 1024)")]
pub struct SizeError(pub String);

impl ByteSize {
    /// Takes a number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let fault = || SizeError(text.chars().take(64).collect());
        let (digits, shift) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
            Some(digits) => (
                digits,
                match text.as_bytes().last() {
                    Some(b'K') => 10,
                    Some(b'M') => 20,
                    Some(b'G') => 30,
                    _ => 40,
                },
            ),
            None => (text, 0),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(fault());
        }
        let number: u64 = digits.parse().map_err(|_| fault())?;
        number.checked_mul(1_u64 << shift).map(Self).ok_or_else(fault)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that keeps the number at 1 or more, with one decimal: `8.0 GiB`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = "B";
        let (mut whole, mut tenths) = (self.0, 0);
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
            if whole < 1024 {
                break;
            }
            tenths = (whole % 1024) * 10 / 1024;
            whole /= 1024;
            unit = next;
        }
        if unit == "B" { write!(out, "{whole} B") } else { write!(out, "{whole}.{tenths} {unit}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_powers_of_1024() {
        assert_eq!("8G".parse::<ByteSize>().unwrap().bytes(), 8 << 30);
        assert_eq!("512".parse::<ByteSize>().unwrap().bytes(), 512);
        for bad in ["", "G", "-1", "1.5G", "1g", "99999999999T", "1 G"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize::new(8 << 30).to_string(), "8.0 GiB");
        assert_eq!(ByteSize::new(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize::new(17).to_string(), "17 B");
    }
}
