//! The ledger: the last accepted desired state and what the agent must remember, in one file.
//!
//! With it an agent starts and serves while the control plane is away. Written to a temporary name, synced and
//! renamed over, so that there is always a whole one; mode 0600, since it holds boot keys, and a write drops the keys
//! of instances that ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bmi_agent_api::desired::DesiredState;
use serde::{Deserialize, Serialize};

use crate::plan::spec::Kept;

/// File name in the unprivileged half's directory.
pub const LEDGER_FILE: &str = "ledger.json";

/// The largest ledger read: 64 MiB is ten times the largest network.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// The last desired state accepted.
    pub desired: Option<DesiredState>,
    /// Slots, floors and who listens.
    pub kept: Kept,
}

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system said no.
    #[error("keeping the ledger {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not one.
    #[error("reading the ledger {path}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Ledger {
    /// Reads the ledger, or starts an empty one.
    ///
    /// # Errors
    /// When there is one that cannot be read: guessing would remove running targets.
    pub fn load(directory: &Path) -> Result<Self, LedgerError> {
        let path = directory.join(LEDGER_FILE);
        let fault = |source| LedgerError::File { path: path.clone(), source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fault(error)),
            Ok(meta) if meta.len() > LARGEST => return Err(fault(io::Error::other("it is too large"))),
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(fault)?;
        serde_json::from_slice(&text).map_err(|source| LedgerError::Form { path, source })
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file system refuses; the old one is whole then.
    pub fn save(&self, directory: &Path) -> Result<(), LedgerError> {
        let path = directory.join(LEDGER_FILE);
        let text =
            serde_json::to_vec(self).map_err(|source| LedgerError::Form { path: path.clone(), source })?;
        write_whole(directory, LEDGER_FILE, &text, 0o600).map_err(|source| LedgerError::File { path, source })
    }
}

/// Replaces a file by one that is whole and on the disk before it has the name.
///
/// # Errors
/// When the file system refuses; the old one is whole then.
pub fn write_whole(directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // Whatever mask this process was started with: a process that is to read it must be able to.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Ledger::load(directory.path()).unwrap(), Ledger::default());
        let mut ledger = Ledger::default();
        ledger.kept.slots.insert("0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap(), 7);
        ledger.kept.listening.insert(crate::plan::names::ProcessId::Netboot, "1-2".to_owned());
        ledger.save(directory.path()).unwrap();
        assert_eq!(Ledger::load(directory.path()).unwrap(), ledger);
        let mode = fs::metadata(directory.path().join(LEDGER_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_ledger_is_not_taken_for_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(LEDGER_FILE), b"{").unwrap();
        assert!(matches!(Ledger::load(directory.path()), Err(LedgerError::Form { .. })));
    }
}
