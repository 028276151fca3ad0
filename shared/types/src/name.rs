//! Names that people give to things: a DNS label (RFC 1123 section 2.1), lower case.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name: a DNS label has at most 63 octets (RFC 1035 section 2.3.4).
const LONGEST: usize = 63;

/// A name: 1 to 63 of `a`–`z`, `0`–`9` and `-`, with a letter or digit at both ends, and not a UUID.
///
/// A name is never a UUID, so `{name-or-id}` in a path is never ambiguous.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters, or more than 63.
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet.
    #[error("a name has only a-z, 0-9 and '-'; `{0}` is not allowed")]
    Character(char),
    /// A hyphen at the start or the end.
    #[error("a name starts and ends with a letter or a digit")]
    Edge,
    /// It would be read as an id.
    #[error("a name must not have the form of a UUID")]
    LooksLikeId,
}

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.chars().count() > LONGEST {
            return Err(NameError::Length(text.chars().count()));
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Character(bad));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Edge);
        }
        if uuid::Uuid::try_parse(text).is_ok() {
            return Err(NameError::LooksLikeId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_lower_case_dns_label() {
        for good in ["a", "node-1", "0", "x".repeat(63).as_str()] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", NameError::Length(0)),
            ("x".repeat(64).as_str(), NameError::Length(64)),
            ("Node", NameError::Character('N')),
            ("a b", NameError::Character(' ')),
            ("a/../b", NameError::Character('/')),
            ("-a", NameError::Edge),
            ("a-", NameError::Edge),
            ("0190163d8694739baea5966c26f8ad91", NameError::LooksLikeId),
        ] {
            assert_eq!(bad.parse::<Name>().unwrap_err(), why, "{bad}");
        }
    }
}
