//! The import directory: files a platform admin may import, opened beneath it and through no link.

use std::fs::File;
use std::path::{Path, PathBuf};

use bmi_types::ImageFormat;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::image::{Inspected, Refusal, inspect};

/// A directory whose files may be imported.
#[derive(Debug, Clone)]
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
    /// Not what it was declared as, or not to be taken.
    #[error("`{file}`: {reason}")]
    Refused {
        /// Which.
        file: String,
        /// Why.
        reason: String,
    },
}

impl ImportDir {
    /// Takes the directory.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Opens an image file of a declared format below the directory, and answers what its disk is.
    ///
    /// # Errors
    /// When the file is not below the directory, not regular, or not to be taken.
    pub fn open(&self, file: &str, format: ImageFormat) -> Result<(File, Inspected), ImportSourceError> {
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
        let refused = |refusal: Refusal| ImportSourceError::Refused {
            file: file.to_owned(),
            reason: refusal.to_string(),
        };
        let inspected = inspect(&opened, format).map_err(refused)?;
        Ok((opened, inspected))
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
        let open = |file: &str| dir.open(file, ImageFormat::Raw);
        assert_eq!(open("sub/good.raw").unwrap().1.virtual_size.bytes(), 1 << 20);
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
            assert!(matches!(open(bad), Err(ImportSourceError::NotBeneath(_))), "{bad}");
        }
        assert!(matches!(open("sub"), Err(ImportSourceError::NotRegular(_))));
        assert!(open("odd.raw").unwrap_err().to_string().contains("512"));
        assert!(open("empty.raw").unwrap_err().to_string().contains("empty"));
        assert!(open("lying.raw").unwrap_err().to_string().contains("qcow2"));
    }
}
