//! The commands beside serving: one file each.
//!
//! Each holds what it changes: the data directory, so that no server runs there, and the database, so that no replica
//! serves it from elsewhere.

pub mod backup;
mod manifest;
pub mod migrate;
pub mod r#move;
pub mod rekey;
pub mod restore;

use std::error::Error;
use std::path::{Path, PathBuf};

use bmi_db::transfer::Transferred;

/// How a command ends.
pub type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Tells what was copied.
#[expect(clippy::print_stdout, reason = "a command tells what it did")]
fn tell(copied: &Transferred) {
    for (table, content) in copied.iter().filter(|(_, content)| content.rows > 0) {
        println!("{table}: {} rows, content {}", content.rows, content.hash());
    }
}

/// Runs what is asynchronous to its end.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(work))
}

/// Removes a database file with its log, or what is left of one.
fn file_remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
