//! What a backup says of itself: its files and their hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The manifest's name.
pub const NAME: &str = "manifest.json";
/// The database's name: SQLite, whatever it was before.
pub const DATABASE: &str = "bmi.sqlite";
/// The way backups are made now.
pub const FORMAT: u32 = 1;
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

/// What a backup consists of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The way it was made.
    pub format: u32,
    /// By which version of the control plane.
    pub version: String,
    /// When, in microseconds since 1970.
    pub made_at: i64,
    /// Its files.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Describes a file as it is.
pub fn entry(folder: &Path, name: &str) -> std::io::Result<Entry> {
    let mut file = File::open(folder.join(name))?;
    let (mut digest, mut buffer, mut bytes) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        let length = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else { break };
        digest.update(read);
        bytes += length as u64;
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Entry { name: name.to_owned(), bytes, sha256 })
}
