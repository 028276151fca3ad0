//! The master key: seals every secret that the database holds.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bmi_types::Secret;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::secret_file::{SecretFileError, load_or_create};

/// Says how what follows was sealed, so that a later way can be told apart.
const VERSION: &str = "v1:";

/// Length of the key in bytes.
const KEY_LENGTH: usize = 32;
/// Length of an XChaCha20 nonce in bytes: long enough to be random for every message.
const NONCE_LENGTH: usize = 24;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The kernel's random source failed.
    #[error("no random bytes")]
    Random,
    /// It was sealed with another key, for another purpose, or was changed.
    #[error("a sealed value cannot be opened with this master key")]
    Unopenable,
}

/// The key in `master_key_file`.
#[derive(Clone)]
pub struct MasterKey {
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Reads the key file, and makes it when it is not there.
    ///
    /// # Errors
    /// When the file is exposed, unreadable or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        let secret = load_or_create(path, || {
            let mut key = [0; KEY_LENGTH];
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            Ok(Secret::new(BASE64.encode(key)))
        })?;
        let content = || SecretFileError::Content {
            path: path.to_owned(),
            expected: "a master key: 32 bytes in base64",
        };
        let key = BASE64.decode(secret.expose()).map_err(|_| content())?;
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| content())?;
        Ok(Self { cipher })
    }

    /// Seals a secret for one purpose, such as `instance.boot_key:<id>`: it opens for no other.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, purpose: &str, secret: &Secret) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let payload = Payload { msg: secret.expose().as_bytes(), aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Random)?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(format!("{VERSION}{}", BASE64.encode(bytes)))
    }

    /// Opens what was sealed for that purpose.
    ///
    /// # Errors
    /// When it was sealed otherwise, or changed.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Secret, SealError> {
        let bytes = sealed.strip_prefix(VERSION).and_then(|text| BASE64.decode(text).ok());
        let bytes = bytes.ok_or(SealError::Unopenable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LENGTH>().ok_or(SealError::Unopenable)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        let clear = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Unopenable)?;
        String::from_utf8(clear).map(Secret::new).map_err(|_| SealError::Unopenable)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = first.seal("a", &Secret::new("value".into())).unwrap();
        let second = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(second.open("a", &sealed).unwrap().expose(), "value");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(
            MasterKey::load_or_create(&path),
            Err(SecretFileError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_sealed_value_opens_only_for_its_purpose_and_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let key = MasterKey::load_or_create(&directory.path().join("a")).unwrap();
        let other = MasterKey::load_or_create(&directory.path().join("b")).unwrap();
        let sealed = key.seal("purpose", &Secret::new("value".into())).unwrap();
        assert!(!sealed.contains("value"));
        assert_eq!(key.open("other", &sealed), Err(SealError::Unopenable));
        assert_eq!(other.open("purpose", &sealed), Err(SealError::Unopenable));
        assert_eq!(key.open("purpose", &sealed.replacen("v1:", "v2:", 1)), Err(SealError::Unopenable));
        let mut changed = sealed.into_bytes();
        let last = changed.last_mut().unwrap();
        *last = if *last == b'A' { b'B' } else { b'A' };
        assert_eq!(key.open("purpose", std::str::from_utf8(&changed).unwrap()), Err(SealError::Unopenable));
    }
}
