//! What the audit log is made of: records as canonical text, a chain of hashes, and signed heads.
//!
//! Each row's hash is SHA-256 over the hash before it and its own text, so that a row cannot be changed or removed
//! without all that follow. The newest hash is signed with a key that is not in the database; so is a checkpoint,
//! which stands for the rows that retention removed.
//!
//! Deliberately absent: what cannot be found by this: a row removed within the second before it was chained, and the
//! end of the log cut off together with its signed head by somebody who also holds an older signed head. Against the
//! latter an auditor keeps the head that was printed last, and verifies that the log still leads through it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bmi_types::{ProjectId, Secret, Timestamp};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::secret_file::{SecretFileError, load_or_create};

/// The hash before the first row.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The policy refused it.
    Denied,
    /// It was done, or begun where it takes time.
    Done,
    /// It was begun, and failed.
    Failed,
}

impl Outcome {
    /// As a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// From a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Denied, Self::Done, Self::Failed].into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `image`, `node`, …
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id; grows with time.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// In which project.
    pub project: Option<ProjectId>,
    /// What: `image:write`.
    pub action: String,
    /// To what, as far as that is known.
    pub object: Option<Object>,
    /// How it ended.
    pub outcome: Outcome,
    /// The request that asked for it.
    pub request: String,
    /// More about it, for people. No secret.
    pub detail: String,
}

impl Record {
    /// The text that is kept and hashed: JSON with the fields in this order, and no space.
    #[must_use]
    pub fn canonical(&self) -> String {
        let object =
            self.object.as_ref().map(|object| serde_json::json!([object.kind, object.id, object.name]));
        // A list keeps its order whatever the map type of the JSON library does.
        serde_json::json!([
            self.id,
            self.at.micros(),
            self.actor,
            self.project,
            self.action,
            object,
            self.outcome.as_str(),
            self.request,
            self.detail,
        ])
        .to_string()
    }
}

impl Record {
    /// Reads a canonical text.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        type Fields = (
            Uuid,
            i64,
            String,
            Option<ProjectId>,
            String,
            Option<(String, String, String)>,
            String,
            String,
            String,
        );
        let (id, at, actor, project, action, object, outcome, request, detail): Fields =
            serde_json::from_str(text).ok()?;
        Some(Self {
            id,
            at: Timestamp::from_micros(at),
            actor,
            project,
            action,
            object: object.map(|(kind, id, name)| Object { kind, id, name }),
            outcome: Outcome::from_word(&outcome)?,
            request,
            detail,
        })
    }
}

/// The hash of a row behind another.
#[must_use]
pub fn link(before: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(b"\n");
    hash.update(text.as_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For what a hash is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// It is the newest.
    Head,
    /// What came before it was removed by retention.
    Checkpoint,
}

impl HeadKind {
    /// As a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// From a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Head, Self::Checkpoint].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A signed place of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// For what it is signed.
    pub kind: HeadKind,
    /// The place; 0 is before the first row.
    pub position: i64,
    /// The hash there.
    pub hash: String,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// The Ed25519 public key (RFC 8032), in base64.
    pub public_key: String,
    /// The signature over the head's text, in base64.
    pub signature: String,
}

/// The text of a head that is signed.
#[must_use]
pub fn head_text(kind: &str, position: i64, hash: &str, signed_at: Timestamp) -> String {
    format!("bmi-audit-{kind}\n{position}\n{hash}\n{}\n", signed_at.micros())
}

/// Signs heads. Its file is outside of the database.
pub struct AuditKey {
    key: SigningKey,
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "AuditKey({})", self.public())
    }
}

impl AuditKey {
    /// Reads the key file, and makes it when it is not there.
    ///
    /// # Errors
    /// When the file is exposed, unreadable or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretFileError> {
        let secret = load_or_create(path, || {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            Ok(Secret::new(BASE64.encode(key)))
        })?;
        let content = || SecretFileError::Content {
            path: path.to_owned(),
            expected: "an audit signing key: 32 bytes in base64",
        };
        let bytes = BASE64.decode(secret.expose()).map_err(|_| content())?;
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| content())?;
        Ok(Self { key: SigningKey::from_bytes(&bytes) })
    }

    /// The public key, in base64.
    #[must_use]
    pub fn public(&self) -> String {
        BASE64.encode(self.key.verifying_key().as_bytes())
    }

    /// Signs a place of the chain.
    #[must_use]
    pub fn sign(&self, kind: HeadKind, position: i64, hash: &str, now: Timestamp) -> Head {
        let text = head_text(kind.as_str(), position, hash, now);
        Head {
            kind,
            position,
            hash: hash.to_owned(),
            signed_at: now,
            public_key: self.public(),
            signature: BASE64.encode(self.key.sign(text.as_bytes()).to_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};

    use super::*;

    #[test]
    fn a_signed_head_is_of_its_place_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.key");
        let key = AuditKey::load_or_create(&path).unwrap();
        assert_eq!(AuditKey::load_or_create(&path).unwrap().public(), key.public());
        let at = Timestamp::from_micros(7);
        let head = key.sign(HeadKind::Head, 3, BEGINNING, at);
        let bytes: [u8; 32] = BASE64.decode(&head.public_key).unwrap().try_into().unwrap();
        let public = VerifyingKey::from_bytes(&bytes).unwrap();
        let signature = Signature::from_slice(&BASE64.decode(&head.signature).unwrap()).unwrap();
        let holds = |kind: &str, position, hash: &str, at| {
            public.verify(head_text(kind, position, hash, at).as_bytes(), &signature).is_ok()
        };
        assert!(holds("head", 3, BEGINNING, at));
        assert!(!holds("checkpoint", 3, BEGINNING, at));
        assert!(!holds("head", 4, BEGINNING, at));
        assert!(!holds("head", 3, &link(BEGINNING, ""), at));
        assert!(!holds("head", 3, BEGINNING, Timestamp::from_micros(8)));
    }
}
