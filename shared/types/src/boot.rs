//! Boot secrets: how the network container and the target agree on a CHAP secret for one boot without talking.
//!
//! Both hold the instance's [`BootKey`]. Boot number *n* logs in as user `<instance>-<n>` with a secret derived by
//! HMAC-SHA-256. Once *n* has logged in, the target refuses every lower number.
//!
//! Boot numbers only have to grow: the network container takes the seconds since 1970, or one more than the last
//! number it gave to that instance, whichever is larger. It needs no storage for that.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{InstanceId, Secret};

/// The characters of a boot secret.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of a boot secret: 16 of 62 characters. Every initiator takes 12 to 16 (Windows takes no more).
const SECRET_LENGTH: usize = 16;

/// The per-instance key from which boot secrets are derived: 32 random bytes, written as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct BootKey([u8; 32]);

impl BootKey {
    /// A fresh random key.
    ///
    /// # Errors
    /// When the kernel's random source fails.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; 32];
        for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// The key as 64 hexadecimal digits, for the messages that must carry it.
    #[must_use]
    pub fn to_hex(&self) -> Secret {
        Secret::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Debug for BootKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BootKey(…)")
    }
}

impl Serialize for BootKey {
    /// In clear: only the desired state and a container's configuration carry one.
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.to_hex().expose())
    }
}

impl<'de> Deserialize<'de> for BootKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Secret::new(String::deserialize(from)?);
        Self::from_hex(text.expose())
            .ok_or_else(|| serde::de::Error::custom("a boot key has 64 hexadecimal digits"))
    }
}

/// The number of a boot of one instance. Later boots have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootNumber(pub u64);

impl fmt::Display for BootNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The CHAP name of one boot: `<instance>-<n>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootUser {
    /// The instance that boots.
    pub instance: InstanceId,
    /// Which boot of it.
    pub boot: BootNumber,
}

impl fmt::Display for BootUser {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.instance, self.boot)
    }
}

impl FromStr for BootUser {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (instance, boot) = text.rsplit_once('-').ok_or(())?;
        if boot.is_empty()
            || !boot.bytes().all(|b| b.is_ascii_digit())
            || (boot.len() > 1 && boot.starts_with('0'))
        {
            return Err(());
        }
        Ok(Self {
            instance: instance.parse().map_err(|_| ())?,
            boot: BootNumber(boot.parse().map_err(|_| ())?),
        })
    }
}

/// The CHAP secret of one boot: 16 letters and digits.
#[must_use]
pub fn boot_secret(key: &BootKey, user: BootUser) -> Secret {
    let mut text = String::with_capacity(SECRET_LENGTH);
    for block in 0_u8..=u8::MAX {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("any length");
        mac.update(b"bmi boot secret v1\0");
        mac.update(user.to_string().as_bytes());
        mac.update(&[0, block]);
        for byte in mac.finalize().into_bytes() {
            // 248 = 4 × 62: larger bytes are passed over, so that each character is equally likely.
            if let Some(character) = (byte < 248).then(|| ALPHABET.get(usize::from(byte) % 62)).flatten() {
                text.push(char::from(*character));
            }
            if text.len() == SECRET_LENGTH {
                return Secret::new(text);
            }
        }
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_secret_belongs_to_one_key_one_instance_and_one_boot() {
        let instance = InstanceId::generate();
        let key = BootKey::from_hex(&"07".repeat(32)).unwrap();
        let of = |key: &BootKey, boot| boot_secret(key, BootUser { instance, boot: BootNumber(boot) });
        assert_eq!(of(&key, 1), of(&key, 1));
        assert_eq!(of(&key, 1).expose().len(), 16);
        assert!(of(&key, 1).expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(of(&key, 1), of(&key, 2));
        assert_ne!(of(&key, 1), of(&BootKey::generate().unwrap(), 1));
        assert_ne!(
            of(&key, 1),
            boot_secret(&key, BootUser { instance: InstanceId::generate(), boot: BootNumber(1) })
        );
    }

    #[test]
    fn a_boot_user_is_read_only_in_its_one_spelling() {
        let user = BootUser { instance: InstanceId::generate(), boot: BootNumber(1_764_000_000) };
        assert_eq!(user.to_string().parse(), Ok(user));
        for bad in [
            "",
            "x-1",
            &format!("{}-01", user.instance),
            &format!("{}-", user.instance),
            &format!("{}-+1", user.instance),
        ] {
            assert_eq!(bad.parse::<BootUser>(), Err(()), "{bad}");
        }
    }
}
