//! Images that the operator put into the store for others to import: how one is named, and why it is not taken.
//!
//! Invariant: a name is of an image in the place that the operator chose. It holds no way to another one: no pool, no
//! namespace, and nothing that some tool would read as either.

use std::fmt;
use std::str::FromStr;

/// The longest name of an image or a snapshot, in bytes.
const NAME_MAX: usize = 255;

/// An image in the store that can be imported, and which of its states: `NAME` as it is now, or `NAME@SNAPSHOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSource {
    image: String,
    snapshot: Option<String>,
}

impl StoredSource {
    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The snapshot's name.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }
}

impl fmt::Display for StoredSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            None => out.write_str(&self.image),
            Some(snapshot) => write!(out, "{}@{snapshot}", self.image),
        }
    }
}

/// A text that names no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be NAME or NAME@SNAPSHOT, each of 1 to {NAME_MAX} bytes without `/`, `@` and control characters: where the image is, \
     the server's configuration says"
)]
pub struct StoredSourceNameError;

impl FromStr for StoredSource {
    type Err = StoredSourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (image, snapshot) = match text.split_once('@') {
            None => (text, None),
            Some((image, snapshot)) => (image, Some(snapshot)),
        };
        let good = |name: &str| {
            (1..=NAME_MAX).contains(&name.len())
                && !name.chars().any(|letter| matches!(letter, '/' | '@') || letter.is_control())
        };
        if !good(image) || snapshot.is_some_and(|snapshot| !good(snapshot)) {
            return Err(StoredSourceNameError);
        }
        Ok(Self { image: image.to_owned(), snapshot: snapshot.map(str::to_owned) })
    }
}

/// Why an image of the store is not imported. What is said is safe to tell the caller: it names only what the caller named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// There are none in a store of that kind.
    #[error("a store of the kind `{0}` has no RBD images; import a file, or upload the image")]
    NoneHere(&'static str),
    /// The operator did not say where they are.
    #[error("this server has no store.import_namespace configured; import a file, or upload the image")]
    NotConfigured,
    /// There is no such image.
    #[error("there is no image `{}` to import", .0.image())]
    NoImage(StoredSource),
    /// It has no such snapshot.
    #[error("the image `{}` has no snapshot `{}`", .0.image(), .0.snapshot().unwrap_or_default())]
    NoSnapshot(StoredSource),
    /// It has clones, and its present state may be another than what they were cloned from.
    #[error(
        "the image `{0}` has clones, and may have changed since they were made; name the snapshot that is meant: `{0}@SNAPSHOT`"
    )]
    HasClones(StoredSource),
    /// Somebody may be writing to it.
    #[error("the image `{0}` is open for writing; name a snapshot (`{0}@SNAPSHOT`), or end what has it open")]
    InUse(StoredSource),
    /// It is not what it was when the copy began.
    #[error(
        "the image `{0}` was changed while it was copied; import it again, from a snapshot if it is in use"
    )]
    Changed(StoredSource),
    /// Its content is not, or not only, where it is read.
    #[error("the image `{source_image}` cannot be read as it is: {reason}")]
    Unreadable {
        /// Which.
        source_image: StoredSource,
        /// Why, and what would be right.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_an_image_and_of_no_other_place() {
        let long = "x".repeat(NAME_MAX);
        for (text, image, snapshot) in [
            ("debian", "debian", None),
            ("debian 12.raw", "debian 12.raw", None),
            ("debian@v1", "debian", Some("v1")),
            ("..", "..", None),
            (long.as_str(), long.as_str(), None),
        ] {
            let source: StoredSource = text.parse().unwrap();
            assert_eq!((source.image(), source.snapshot()), (image, snapshot));
            assert_eq!(source.to_string(), text);
        }
        let longer = "x".repeat(NAME_MAX + 1);
        let project =
            format!("{}/volume-{}", bmi_types::ProjectId::generate(), bmi_types::VolumeId::generate());
        for bad in [
            "",
            "@",
            "@v1",
            "debian@",
            "debian@v1@v2",
            "bmi/other/debian",
            "other/debian",
            "/debian",
            "debian@../v1",
            "debian\0",
            "de\0bian@v1",
            "debian@v\n1",
            "debian\u{7f}",
            &longer,
            &project,
        ] {
            assert_eq!(bad.parse::<StoredSource>(), Err(StoredSourceNameError), "{bad:?}");
        }
    }
}
