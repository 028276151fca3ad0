//! What a Ceph client proves itself with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The longest key: a cephx key of today is 40 characters of base64.
const KEY_MAX: usize = 128;

/// A cephx secret key in base64, as `ceph auth get-key` prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct CephKey(Secret);

impl CephKey {
    /// Takes a key: base64, at most 128 characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let fits = !text.is_empty() && text.len() <= KEY_MAX && text.bytes().all(base64);
        fits.then(|| Self(Secret::new(text.to_owned())))
    }

    /// The key, for the few that must have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for CephKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("CephKey(…)")
    }
}

impl Serialize for CephKey {
    /// In clear: only the desired state and a broker's configuration carry one.
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for CephKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Secret::new(String::deserialize(from)?);
        Self::parse(text.expose()).ok_or_else(|| serde::de::Error::custom("a cephx key is base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64_and_never_shown() {
        let key = CephKey::parse("AQBVcSdnAAAAABAAFGYqHSyLkVCmPvZzcoF3Xw==").unwrap();
        assert_eq!(format!("{key:?}"), "CephKey(…)");
        assert_eq!(key.expose(), "AQBVcSdnAAAAABAAFGYqHSyLkVCmPvZzcoF3Xw==");
        for bad in ["", "a b", "a\nkey = b", &"A".repeat(129)] {
            assert_eq!(CephKey::parse(bad), None, "{bad}");
        }
    }
}
