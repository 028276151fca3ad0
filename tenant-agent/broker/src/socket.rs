//! The socket clients connect to: made here, or made by who started this process and handed over.

use std::fs::{self, Permissions};
use std::io::{self, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};

/// Makes it anew. Only this process's user may connect.
///
/// # Errors
/// When something else is in its place, or the file system refuses.
pub fn make(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Under a name of its own until its mode is right: a client may try at any moment.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Takes the listening socket on standard input.
///
/// # Errors
/// When there is none.
pub fn inherit() -> io::Result<UnixListener> {
    let socket = stdin().as_fd().try_clone_to_owned()?;
    if socket_domain(&socket)? != AddressFamily::UNIX || !socket_acceptconn(&socket)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "standard input is no listening unix socket",
        ));
    }
    Ok(UnixListener::from(socket))
}
