//! Who this agent is, in one file: its id, key and certificate, and whom it trusts.
//!
//! The file is replaced as a whole, so that key and certificate always belong together; it is the unprivileged half's,
//! mode 0600. An id stays for ever, with the key that proves it: an agent that lost both joins as another one.
//!
//! Before an agent joins, its key is in a file of its own: whoever is interrupted asks again with the same key, and is
//! answered the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bmi_types::{AgentId, Name, NetworkId, Secret, Timestamp, exposed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ledger::write_whole;

/// File name in the unprivileged half's directory.
pub const IDENTITY_FILE: &str = "identity.json";
/// The same of what it joins with.
const JOINING_FILE: &str = "joining.json";

/// The largest file read: an identity has a few certificates.
const LARGEST: u64 = 256 << 10;

/// Who this agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its id.
    pub agent: AgentId,
    /// Its network's id.
    pub network_id: NetworkId,
    /// Its network's name, as configured when it joined.
    pub network: Name,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    #[serde(with = "exposed")]
    pub key: Secret,
    /// Certificates of the authorities that it trusts, in PEM.
    pub authorities: Vec<String>,
    /// What that set is known by.
    pub authorities_mark: String,
    /// When the certificate is to be renewed, by this host's clock.
    pub renew_at: Timestamp,
    /// When it ends, by this host's clock.
    pub expires_at: Timestamp,
}

/// What an agent joins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    /// Who it was before, if it was.
    pub agent: Option<AgentId>,
    /// Its key, in PEM.
    #[serde(with = "exposed")]
    pub key: Secret,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("keeping {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not one.
    #[error("reading {path}: join again, with `bmi-agent enrol --new`")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

fn load<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, IdentityError> {
    let path = directory.join(name);
    let fault = |source| IdentityError::File { path: path.clone(), source };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
        Ok(meta) if meta.len() > LARGEST => return Err(fault(io::Error::other("it is too large"))),
        Ok(_) => {}
    }
    let text = fs::read(&path).map_err(fault)?;
    serde_json::from_slice(&text).map(Some).map_err(|source| IdentityError::Form { path, source })
}

fn save(directory: &Path, name: &str, what: &impl Serialize) -> Result<(), IdentityError> {
    let path = directory.join(name);
    let text =
        serde_json::to_vec(what).map_err(|source| IdentityError::Form { path: path.clone(), source })?;
    write_whole(directory, name, &text, 0o600).map_err(|source| IdentityError::File { path, source })
}

fn remove(directory: &Path, name: &str) -> Result<(), IdentityError> {
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::File { path, source }),
        _ => Ok(()),
    }
}

impl Kept {
    /// Reads who this agent is; nothing when it has not joined.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        load(directory, IDENTITY_FILE)
    }

    /// Writes it. What it joined with is not needed any more.
    ///
    /// # Errors
    /// When the file system refuses; the old one is whole then.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        save(directory, IDENTITY_FILE, self)?;
        remove(directory, JOINING_FILE)
    }

    /// Forgets who this agent was.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget(directory: &Path) -> Result<(), IdentityError> {
        remove(directory, JOINING_FILE)?;
        remove(directory, IDENTITY_FILE)
    }
}

impl Joining {
    /// What the last attempt joined with.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        load(directory, JOINING_FILE)
    }

    /// Writes it, before anybody is asked.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        save(directory, JOINING_FILE, self)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_for_its_owner_alone_and_ends_the_joining() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert_eq!(Kept::load(at).unwrap(), None);
        let joining = Joining { agent: None, key: Secret::new("key".to_owned()) };
        joining.save(at).unwrap();
        assert_eq!(Joining::load(at).unwrap(), Some(joining));
        let kept = Kept {
            agent: AgentId::generate(),
            network_id: NetworkId::generate(),
            network: "lab".parse().unwrap(),
            certificate: "certificate".to_owned(),
            key: Secret::new("key".to_owned()),
            authorities: vec!["authority".to_owned()],
            authorities_mark: "mark".to_owned(),
            renew_at: Timestamp::from_micros(1),
            expires_at: Timestamp::from_micros(2),
        };
        kept.save(at).unwrap();
        assert_eq!(Kept::load(at).unwrap(), Some(kept));
        assert_eq!(Joining::load(at).unwrap(), None);
        let mode = fs::metadata(at.join(IDENTITY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Kept::forget(at).unwrap();
        assert_eq!(Kept::load(at).unwrap(), None);
    }

    #[test]
    fn half_an_identity_is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(IDENTITY_FILE), b"{\"agent\":").unwrap();
        assert!(matches!(Kept::load(directory.path()), Err(IdentityError::Form { .. })));
    }
}
