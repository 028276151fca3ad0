//! The network boot loaders, read whole into memory once: what is not in this map cannot be asked for.
//!
//! Invariant: a file name from the network is only ever compared with the names here, never with a file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The loader for BIOS firmware: iPXE on top of the card's own PXE stack.
pub const BIOS: &str = "undionly.kpxe";

/// The loader for UEFI firmware: iPXE on top of the card's Simple Network Protocol.
pub const UEFI: &str = "snponly.efi";

/// The same for 64-bit ARM. Debian has no package with it for other machines, so it may be absent.
pub const UEFI_ARM: &str = "snponly-arm64.efi";

/// The largest loader: real ones are under 1 MiB, and all stay in memory.
const LARGEST: usize = 8 * 1024 * 1024;

/// What each kind of loader starts with, to notice a wrong or truncated file at start and not at a node's console.
const UEFI_MAGIC: &[u8] = b"MZ";

/// Why the loaders cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The file system said no.
    #[error("reading the loader {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be a loader.
    #[error("{0} is not a network boot loader (empty, over 8 MiB, or no UEFI program)")]
    NotALoader(PathBuf),
}

/// A loader: its name and its bytes.
type Loader = (&'static str, Arc<[u8]>);

/// The loaders in memory.
#[derive(Debug, Clone)]
pub struct Loaders(Arc<[Loader]>);

impl Loaders {
    /// Reads all that are there.
    ///
    /// # Errors
    /// When one that must be there is absent, or one cannot be a loader.
    pub fn read(directory: &Path) -> Result<Self, LoaderError> {
        let mut found = Vec::new();
        for (name, magic, needed) in [
            (BIOS, &b""[..], Needed::Always),
            (UEFI, UEFI_MAGIC, Needed::Always),
            (UEFI_ARM, UEFI_MAGIC, Needed::Never),
        ] {
            let path = directory.join(name);
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && needed == Needed::Never => continue,
                read => read.map_err(|source| LoaderError::Read { path: path.clone(), source })?,
            };
            if bytes.is_empty() || bytes.len() > LARGEST || !bytes.starts_with(magic) {
                return Err(LoaderError::NotALoader(path));
            }
            found.push((name, Arc::from(bytes)));
        }
        Ok(Self(found.into()))
    }

    /// A loader by its exact name; one leading slash is tolerated, since some firmware puts it there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Loader> {
        let name = name.strip_prefix('/').unwrap_or(name);
        self.0.iter().find(|(known, _)| *known == name).map(|(known, bytes)| (*known, Arc::clone(bytes)))
    }
}

/// Whether a network can be served without a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Always,
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_served() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(BIOS), b"bios").unwrap();
        fs::write(directory.path().join(UEFI), b"MZuefi").unwrap();
        let loaders = Loaders::read(directory.path()).unwrap();
        assert_eq!(loaders.get("undionly.kpxe").unwrap().1.as_ref(), b"bios");
        assert_eq!(loaders.get("/snponly.efi").unwrap().1.as_ref(), b"MZuefi");
        assert!(loaders.get(UEFI_ARM).is_none(), "it is not there");
        fs::write(directory.path().join(UEFI_ARM), b"MZarm").unwrap();
        let loaders = Loaders::read(directory.path()).unwrap();
        assert_eq!(loaders.get(UEFI_ARM).unwrap().1.as_ref(), b"MZarm");
        for name in
            ["", "/", "//snponly.efi", "../snponly.efi", "./snponly.efi", "SNPONLY.EFI", "/etc/passwd"]
        {
            assert!(loaders.get(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_wrong_file_is_noticed_at_start() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Loaders::read(directory.path()), Err(LoaderError::Read { .. })));
        fs::write(directory.path().join(BIOS), b"bios").unwrap();
        fs::write(directory.path().join(UEFI), b"<html>").unwrap();
        assert!(matches!(Loaders::read(directory.path()), Err(LoaderError::NotALoader(_))));
    }
}
