//! Files that hold one secret: mode 0600, made once, never overwritten.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bmi_types::Secret;
use uuid::Uuid;

/// Longest secret file in bytes; anything longer is not one of ours.
const LONGEST: u64 = 4096;

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It can be read by others.
    #[error("{path} has mode {mode:03o}; it must be 600, or others can read the secret")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} does not hold {expected}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
}

/// Reads a secret file; makes it first, with what `generate` gives, when it is not there.
pub(crate) fn load_or_create(
    path: &Path,
    generate: impl FnOnce() -> Result<Secret, std::io::Error>,
) -> Result<Secret, SecretFileError> {
    let fail = |action| move |source| SecretFileError::Io { action, path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = generate().map_err(fail("make a secret for"))?;
            // Of a name of its own: replicas that start at once make the same file.
            let temporary = path.with_extension(format!("{}.new", Uuid::new_v4().simple()));
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)
                .map_err(fail("create"))?;
            writeln!(file, "{}", secret.expose()).and_then(|()| file.sync_all()).map_err(fail("write"))?;
            // A hard link fails when the name is taken: of two first starts, one wins and both use its secret.
            let linked = std::fs::hard_link(&temporary, path);
            std::fs::remove_file(&temporary).ok();
            match linked {
                Ok(()) => Ok(secret),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    read(path, File::open(path).map_err(fail("open"))?)
                }
                Err(error) => Err(fail("create")(error)),
            }
        }
        Err(error) => Err(fail("open")(error)),
    }
}

/// Reads a secret file that must be there, and for nobody else: mode 0600.
///
/// # Errors
/// When it is absent or others may read it.
pub fn load(path: &Path) -> Result<Secret, SecretFileError> {
    let fail = |source| SecretFileError::Io { action: "open", path: path.to_owned(), source };
    read(path, File::open(path).map_err(fail)?)
}

fn read(path: &Path, mut file: File) -> Result<Secret, SecretFileError> {
    let fail = |source| SecretFileError::Io { action: "read", path: path.to_owned(), source };
    let metadata = file.metadata().map_err(fail)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    (&mut file).take(LONGEST).read_to_string(&mut text).map_err(fail)?;
    Ok(Secret::new(text.trim_end_matches('\n').to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_who_make_it_at_once_have_the_same_secret_and_leave_nothing_beside_it() {
        const MAKERS: usize = 16;
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let (path, gate) = (directory.path().join("master.key"), Barrier::new(MAKERS));
            let secrets: Vec<String> = std::thread::scope(|scope| {
                let make = || {
                    gate.wait();
                    let own = || Ok(Secret::new(Uuid::new_v4().to_string()));
                    load_or_create(&path, own).unwrap().expose().to_owned()
                };
                let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(make)).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            let kept = std::fs::read_to_string(&path).unwrap();
            assert!(secrets.iter().all(|secret| secret == kept.trim_end()), "{kept}: {secrets:?}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }
}
