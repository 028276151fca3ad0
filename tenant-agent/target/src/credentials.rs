//! Who may log in: anybody, one CHAP user, or boots with a number that is not below the floor.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bmi_agent_api::config::BootGate;
use bmi_iscsi::Mutual;
use bmi_types::{BootNumber, BootUser, Secret, boot_secret};

use crate::arguments::Arguments;

/// The largest secret or gate file, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// 96 bits (RFC 7143 section 12.1.3).
const SECRET_MIN: usize = 12;

/// Why secrets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("{}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the secrets of CHAP and of mutual CHAP are the same; they must differ (RFC 7143 section 12.1.3)"
    )]
    SameSecret,
    #[error("{} is not a boot gate", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// What a login must prove.
#[derive(Debug)]
pub enum Credentials {
    /// Nothing.
    Open,
    /// That it is this user.
    User {
        user: String,
        secret: Secret,
        /// What this target can prove in turn: its name and its secret.
        mutual: Option<(String, Secret)>,
    },
    /// That it is a boot of this instance, and not an earlier one than the last.
    Gate(Gate),
}

/// Opens what the command line names.
pub fn open(arguments: &Arguments) -> Result<Credentials, CredentialError> {
    if let Some(path) = &arguments.boot_gate {
        return Ok(Credentials::Gate(Gate::open(path)?));
    }
    let (Some(user), Some(path)) = (&arguments.chap_user, &arguments.chap_secret_file) else {
        return Ok(Credentials::Open);
    };
    let secret = secret(path)?;
    let mutual = match (&arguments.mutual_user, &arguments.mutual_secret_file) {
        (Some(name), Some(path)) => Some((name.clone(), self::secret(path)?)),
        _ => None,
    };
    if mutual.as_ref().is_some_and(|(_, mutual)| *mutual == secret) {
        return Err(CredentialError::SameSecret);
    }
    Ok(Credentials::User { user: user.clone(), secret, mutual })
}

/// A secret; one newline at the end of its file is not part of it.
fn secret(path: &Path) -> Result<Secret, CredentialError> {
    let mut secret = read(path)?;
    if secret.ends_with('\n') {
        secret.pop();
    }
    if secret.len() < SECRET_MIN {
        tracing::warn!(
            file = %path.display(),
            "a CHAP secret shorter than {SECRET_MIN} bytes can be guessed from one login (RFC 7143 section 12.1.3)"
        );
    }
    Ok(Secret::new(secret))
}

fn read(path: &Path) -> Result<String, CredentialError> {
    let fault = |source| CredentialError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(fault)?.len() > FILE_MAX {
        return Err(fault(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read_to_string(path).map_err(fault)
}

impl Credentials {
    /// Whether CHAP is required.
    pub const fn required(&self) -> bool {
        !matches!(self, Self::Open)
    }

    /// The secret of a CHAP user, if there is such a user now.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        match self {
            Self::Open => None,
            Self::User { user, secret, .. } => (user == name).then(|| secret.clone()),
            Self::Gate(gate) => {
                gate.refresh();
                let user = gate.user(name)?;
                Some(boot_secret(&gate.current.boot_key, user))
            }
        }
    }

    /// Who this target is in mutual CHAP, if it can prove that.
    pub fn mutual(&self) -> Option<Mutual<'_>> {
        match self {
            Self::User { mutual: Some((name, secret)), .. } => {
                Some(Mutual { name, secret: secret.expose().as_bytes() })
            }
            _ => None,
        }
    }

    /// The boot a verified user stands for. `Err` if it may no longer log in.
    pub fn boot(&self, name: Option<&str>) -> Result<Option<BootNumber>, ()> {
        match self {
            Self::Gate(gate) => name.and_then(|name| gate.user(name)).map(|user| Some(user.boot)).ok_or(()),
            _ => Ok(None),
        }
    }

    /// A boot has its session: earlier ones are refused from now on.
    pub fn raise_floor(&mut self, boot: BootNumber) {
        if let Self::Gate(gate) = self {
            gate.current.floor = gate.current.floor.max(boot);
        }
    }
}

/// A [`BootGate`] and the file it came from.
///
/// Invariant: the instance never changes, and the floor only rises, whatever the file says later.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    current: BootGate,
    version: Option<Version>,
}

/// Changes when the file is replaced or written.
type Version = (u64, i64, i64, u64);

fn version(path: &Path) -> Option<Version> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

impl Gate {
    fn open(path: &Path) -> Result<Self, CredentialError> {
        let version = version(path);
        Ok(Self { path: path.to_owned(), current: Self::load(path)?, version })
    }

    fn load(path: &Path) -> Result<BootGate, CredentialError> {
        serde_json::from_str(&read(path)?)
            .map_err(|source| CredentialError::Parse { path: path.to_owned(), source })
    }

    /// Reads the file again if it changed. A file that cannot be used changes nothing.
    fn refresh(&mut self) {
        let version = version(&self.path);
        if version == self.version {
            return;
        }
        match Self::load(&self.path) {
            Ok(new) if new.instance == self.current.instance => {
                let floor = new.floor.max(self.current.floor);
                self.current = BootGate { floor, ..new };
            }
            Ok(_) => tracing::warn!("the boot gate names another instance and is ignored"),
            Err(error) => tracing::warn!(%error, "the boot gate cannot be read again"),
        }
        self.version = version;
    }

    fn user(&self, name: &str) -> Option<BootUser> {
        let user: BootUser = name.parse().ok()?;
        (user.instance == self.current.instance && user.boot >= self.current.floor).then_some(user)
    }
}

#[cfg(test)]
mod tests {
    use bmi_types::{BootKey, InstanceId};

    use super::*;

    fn write(path: &Path, gate: &BootGate) {
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_string(gate).unwrap()).unwrap();
        fs::rename(beside, path).unwrap();
    }

    #[test]
    fn a_floor_only_rises_and_a_new_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boot.json");
        let instance = InstanceId::generate();
        let mut file = BootGate { instance, boot_key: BootKey::generate().unwrap(), floor: BootNumber(5) };
        write(&path, &file);
        let mut credentials = Credentials::Gate(Gate::open(&path).unwrap());
        let name = |boot| BootUser { instance, boot: BootNumber(boot) }.to_string();

        assert!(credentials.secret(&name(4)).is_none());
        let user = BootUser { instance, boot: BootNumber(5) };
        assert_eq!(credentials.secret(&name(5)), Some(boot_secret(&file.boot_key, user)));
        let foreign = BootUser { instance: InstanceId::generate(), boot: BootNumber(9) };
        assert!(credentials.secret(&foreign.to_string()).is_none());

        credentials.raise_floor(BootNumber(7));
        assert!(credentials.secret(&name(6)).is_none());
        assert!(credentials.secret(&name(7)).is_some());
        assert_eq!(credentials.boot(Some(&name(6))), Err(()));

        // The file lags behind: the floor stays.
        file.floor = BootNumber(6);
        write(&path, &file);
        assert!(credentials.secret(&name(6)).is_none());
        file.floor = BootNumber(20);
        write(&path, &file);
        assert!(credentials.secret(&name(19)).is_none());
        assert!(credentials.secret(&name(20)).is_some());
        // Nonsense changes nothing.
        fs::write(&path, "{}").unwrap();
        assert!(credentials.secret(&name(20)).is_some());
    }
}
