//! Sessions that `bmi login` began: one file for each server, which nobody else can read.
//!
//! Below `$XDG_STATE_HOME/bmi/sessions`, or `~/.local/state/bmi/sessions`.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bmi_types::Secret;

use crate::failure::Failure;

/// The file of a server's session: its URL, with everything unusual written as its number.
pub(crate) fn path(server: &str) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state = state
        .ok_or_else(|| Failure::usage("neither XDG_STATE_HOME nor HOME says where sessions are kept"))?;
    let mut name = String::new();
    for byte in server.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => name.push(char::from(byte)),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    Ok(state.join("bmi/sessions").join(name))
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot {what} {}: {error}", path.display()))
}

/// Keeps the session of a server, over the one before.
pub(crate) fn keep(server: &str, token: &Secret) -> Result<(), Failure> {
    let path = path(server)?;
    let fail = |error| failed(&path, "write", &error);
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    }
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
    let written = file.and_then(|mut file| {
        writeln!(file, "{}", token.expose())?;
        file.sync_all()
    });
    let kept = written.and_then(|()| std::fs::rename(&temporary, &path));
    if kept.is_err() {
        std::fs::remove_file(&temporary).ok();
    }
    kept.map_err(fail)
}

/// Forgets the session of a server.
pub(crate) fn forget(server: &str) -> Result<(), Failure> {
    let path = path(server)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&path, "remove", &error)),
        _ => Ok(()),
    }
}
