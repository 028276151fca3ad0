//! Verifies the chain of the audit log, without believing the server.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bmi_api::{AuditHead, AuditRow};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// The hash before the first row.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A place of the chain that was verified before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    position: i64,
    hash: String,
}

impl Known {
    /// Reads a place; nothing when the file is not there yet.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let read = || {
            let (position, hash) = text.trim().split_once(' ')?;
            Some(Self { position: position.parse().ok()?, hash: hash.to_owned() })
        };
        read().map(Some).ok_or_else(|| wrong("is not a head that was kept".to_owned()))
    }

    /// Keeps a place.
    pub(crate) fn write(path: &Path, verified: &Verified) -> Result<(), Failure> {
        let text = format!("{} {}\n", verified.position, verified.hash);
        let fail = |error: std::io::Error| Failure::Usage(format!("{}: {error}", path.display()));
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, text).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(fail)
    }
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// How many rows.
    pub(crate) rows: i64,
    /// Behind which place the chain begins.
    pub(crate) from: i64,
    /// The place of the last row.
    pub(crate) position: i64,
    /// The hash there.
    pub(crate) hash: String,
    /// The key that signed the head.
    pub(crate) key: String,
}

fn bad(text: String) -> Failure {
    Failure::Operation(format!("the audit log is not what it was: {text}"))
}

/// Checks a head's signature, and that its key is one that is believed.
fn signed(head: &AuditHead, kind: &str, keys: &[String]) -> Result<(), Failure> {
    if head.kind != kind {
        return Err(bad(format!("a {} stands for a {kind}", head.kind)));
    }
    let bare = |key: &str| key.trim_end_matches('=').to_owned();
    if !keys.is_empty() && !keys.iter().any(|key| bare(key) == bare(&head.public_key)) {
        return Err(bad(format!("the {kind} is signed by {}, which is not believed", head.public_key)));
    }
    let broken = || bad(format!("the signature of the {kind} at {} does not hold", head.position));
    let key = BASE64.decode(bare(&head.public_key)).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
    let key = key.and_then(|key| VerifyingKey::from_bytes(&key).ok()).ok_or_else(broken)?;
    let signature = BASE64.decode(&head.signature).ok().and_then(|it| Signature::from_slice(&it).ok());
    let text = format!("bmi-audit-{kind}\n{}\n{}\n{}\n", head.position, head.hash, head.signed_at.micros());
    key.verify(text.as_bytes(), &signature.ok_or_else(broken)?).map_err(|_| broken())
}

/// Follows a chain.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Vec<String>,
    from: i64,
    position: i64,
    hash: String,
    known: Option<Known>,
}

impl Verifier {
    /// Begins behind a checkpoint, or at the very first row.
    pub(crate) fn begin(
        keys: &[String],
        checkpoint: Option<&AuditHead>,
        known: Option<Known>,
    ) -> Result<Self, Failure> {
        if let Some(checkpoint) = checkpoint {
            signed(checkpoint, "checkpoint", keys)?;
        }
        let (from, hash) = checkpoint
            .map_or((0, BEGINNING.to_owned()), |checkpoint| (checkpoint.position, checkpoint.hash.clone()));
        // What retention removed cannot be looked at any more.
        let known = known.filter(|known| known.position >= from);
        let verifier = Self { keys: keys.to_vec(), from, position: from, hash, known };
        verifier.meets_known()?;
        Ok(verifier)
    }

    fn meets_known(&self) -> Result<(), Failure> {
        match &self.known {
            Some(known) if known.position == self.position && known.hash != self.hash => {
                Err(bad(format!("place {} has another hash than when it was verified last", known.position)))
            }
            _ => Ok(()),
        }
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, row: &AuditRow) -> Result<(), Failure> {
        if row.position != self.position + 1 {
            let missing = self.position + 1;
            return Err(bad(format!("place {missing} is missing, {} follows", row.position)));
        }
        let mut hash = Sha256::new();
        hash.update(self.hash.as_bytes());
        hash.update(b"\n");
        hash.update(row.text.as_bytes());
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if hash != row.hash {
            return Err(bad(format!("the row at place {} was changed, or one before it", row.position)));
        }
        if !row.consistent {
            return Err(bad(format!(
                "the row at place {} is filed under something else than it says",
                row.position
            )));
        }
        (self.position, self.hash) = (row.position, hash);
        self.meets_known()
    }

    /// Ends at the signed head. Rows may have come since it was signed.
    pub(crate) fn end(self, head: Option<&AuditHead>) -> Result<Verified, Failure> {
        if let Some(known) = self.known.as_ref().filter(|known| known.position > self.position) {
            let detail = format!(
                "it ends at place {}, and place {} was verified before",
                self.position, known.position
            );
            return Err(bad(detail));
        }
        let key = match head {
            None if self.position == self.from => String::new(),
            None => return Err(bad("its head is not signed".to_owned())),
            Some(head) => {
                signed(head, "head", &self.keys)?;
                if head.position > self.position {
                    let detail =
                        format!("it ends at place {}, and place {} was signed", self.position, head.position);
                    return Err(bad(detail));
                }
                if head.position == self.position && head.hash != self.hash {
                    return Err(bad("its head was signed over another hash".to_owned()));
                }
                head.public_key.clone()
            }
        };
        Ok(Verified {
            rows: self.position - self.from,
            from: self.from,
            position: self.position,
            hash: self.hash,
            key,
        })
    }
}
