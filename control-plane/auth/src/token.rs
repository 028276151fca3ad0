//! The local admin token: made at first start, for deployments without an identity provider.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bmi_types::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Caller;
use crate::secret_file::{SecretFileError, load_or_create};

/// Knows the local admin token. Only its hash is kept in memory.
#[derive(Clone)]
pub struct LocalAdmin {
    hash: [u8; 32],
}

impl std::fmt::Debug for LocalAdmin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("LocalAdmin(…)")
    }
}

impl LocalAdmin {
    /// What every local admin token begins with, so that scanners find one that leaked.
    pub const PREFIX: &str = "bmi-admin-";

    /// Reads the token file, and makes it (256 random bits) when it is not there.
    ///
    /// # Errors
    /// When the file is exposed, unreadable or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        let token = load_or_create(path, || {
            let mut bits = [0; 32];
            getrandom::fill(&mut bits).map_err(std::io::Error::other)?;
            Ok(Secret::new(format!("{}{}", Self::PREFIX, BASE64URL.encode(bits))))
        })?;
        if !token.expose().starts_with(Self::PREFIX) || token.expose().len() < Self::PREFIX.len() + 43 {
            return Err(SecretFileError::Content { path: path.to_owned(), expected: "a local admin token" });
        }
        Ok(Self { hash: Sha256::digest(token.expose().as_bytes()).into() })
    }

    /// The caller that a bearer token proves, if any. Takes the same time for every wrong token of a length.
    #[must_use]
    pub fn authenticate(&self, bearer: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(bearer.as_bytes()).into();
        bool::from(hash.ct_eq(&self.hash)).then(Caller::local_admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_in_the_file_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let admin = LocalAdmin::load_or_create(&path).unwrap();
        let token = std::fs::read_to_string(&path).unwrap();
        assert_eq!(admin.authenticate(token.trim()), Some(Caller::local_admin()));
        assert_eq!(
            LocalAdmin::load_or_create(&path).unwrap().authenticate(token.trim()),
            Some(Caller::local_admin())
        );
        for wrong in ["", "bmi-admin-", token.as_str(), &token.trim()[1..]] {
            assert_eq!(admin.authenticate(wrong), None, "{wrong:?}");
        }
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(LocalAdmin::load_or_create(&path), Err(SecretFileError::Content { .. })));
    }
}
