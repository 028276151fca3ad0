//! The data directory, which one control plane or one command of it has at a time.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another one has it.
    #[error("another control plane serves {0}, or a command of it works there")]
    InUse(PathBuf),
}

/// Makes the directory when it is not there, and keeps every other control plane out of it until the file is dropped,
/// however this one ends.
///
/// # Errors
/// When it cannot be made, or another one has it.
pub fn hold(data_dir: &Path) -> Result<File, DataDirError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DataDirError::Io { action, path, source }
    };
    std::fs::create_dir_all(data_dir).map_err(fail("make", data_dir))?;
    // Others may pass through to what is theirs (the socket, a volume), and list nothing.
    std::fs::set_permissions(data_dir, PermissionsExt::from_mode(0o711))
        .map_err(fail("set the mode of", data_dir))?;
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(fail("create", &path))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| DataDirError::InUse(data_dir.to_owned()))?;
    Ok(file)
}
