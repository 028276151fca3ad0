//! The import directory: files a platform admin may import, opened beneath it and through no link.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A directory whose files may be imported.
#[derive(Debug)]
pub struct ImportDir {
    path: PathBuf,
}

/// Why a file cannot be imported. What is said is safe to tell the caller: it names only what the caller named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportSourceError {
    /// Absolute, climbing, through a link, or not there.
    #[error("`{0}` is not a file below the import directory (a relative path, no `..`, no links)")]
    NotBeneath(String),
    /// A directory, device, socket or pipe.
    #[error("`{0}` is not a regular file")]
    NotRegular(String),
    /// No bytes, or not whole blocks.
    #[error("`{file}` has {size} bytes; a raw disk image has a multiple of 512, at least 1 MiB")]
    NotADisk {
        /// Which.
        file: String,
        /// Its size.
        size: u64,
    },
    /// A qcow2, VMDK, VHDX or compressed file.
    #[error("`{file}` is a {format} file, not a raw disk image")]
    NotRaw {
        /// Which.
        file: String,
        /// What its first bytes say.
        format: &'static str,
    },
}

/// First bytes of formats that are not raw.
const MAGICS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

impl ImportDir {
    /// Takes the directory.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Opens a raw disk image below the directory and answers its size.
    ///
    /// # Errors
    /// When the file is not below the directory, not regular, or not a raw disk image.
    pub fn open(&self, file: &str) -> Result<(File, u64), ImportSourceError> {
        let outside = || ImportSourceError::NotBeneath(file.to_owned());
        let directory = File::open(&self.path).map_err(|_| outside())?;
        let opened = rustix::fs::openat2(
            &directory,
            Path::new(file),
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(|_| outside())?;
        let opened = File::from(opened);
        let metadata = opened.metadata().map_err(|_| outside())?;
        if !metadata.is_file() {
            return Err(ImportSourceError::NotRegular(file.to_owned()));
        }
        let mut head = [0_u8; 32];
        let read = std::os::unix::fs::FileExt::read_at(&opened, &mut head, 0).map_err(|_| outside())?;
        let head = head.get(..read).unwrap_or_default();
        if let Some((_, format)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(ImportSourceError::NotRaw { file: file.to_owned(), format });
        }
        let size = metadata.len();
        if size < 1024 * 1024 || size % 512 != 0 {
            return Err(ImportSourceError::NotADisk { file: file.to_owned(), size });
        }
        Ok((opened, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_raw_disks_below_the_directory_open() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.raw"), vec![0; 1 << 20]).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        std::fs::write(root.path().join("sub/good.raw"), vec![0; 1 << 20]).unwrap();
        std::fs::write(root.path().join("odd.raw"), vec![0; (1 << 20) + 1]).unwrap();
        std::fs::write(root.path().join("empty.raw"), b"").unwrap();
        let mut qcow2 = b"QFI\xfb".to_vec();
        qcow2.resize(1 << 20, 0);
        std::fs::write(root.path().join("lying.raw"), qcow2).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.raw"), root.path().join("link.raw")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("linkdir")).unwrap();
        let dir = ImportDir::new(root.path().to_owned());
        assert_eq!(dir.open("sub/good.raw").unwrap().1, 1 << 20);
        let absolute = outside.path().join("secret.raw");
        for bad in [
            "../x",
            "link.raw",
            "linkdir/secret.raw",
            "absent",
            "",
            absolute.to_str().unwrap(),
            "sub/../../x",
        ] {
            assert!(matches!(dir.open(bad), Err(ImportSourceError::NotBeneath(_))), "{bad}");
        }
        assert!(matches!(dir.open("sub"), Err(ImportSourceError::NotRegular(_))));
        assert!(matches!(dir.open("odd.raw"), Err(ImportSourceError::NotADisk { .. })));
        assert!(matches!(dir.open("empty.raw"), Err(ImportSourceError::NotADisk { size: 0, .. })));
        assert!(matches!(dir.open("lying.raw"), Err(ImportSourceError::NotRaw { format: "qcow2", .. })));
    }
}
