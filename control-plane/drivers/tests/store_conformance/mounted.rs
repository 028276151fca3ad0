//! A local store on a file system of its own, which is unmounted at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

use bmi_drivers::image::Converter;
use bmi_drivers::store::{LocalStore, Place, prepare_local_directory};
use bmi_types::ByteSize;
use tempfile::TempDir;

/// Room enough for what most tests write.
pub const ROOMY: ByteSize = ByteSize::new(512 << 20);
/// The smallest file system there can be.
pub const SMALL: ByteSize = ByteSize::new(300 << 20);

/// A mounted store.
pub struct Mounted {
    pub store: LocalStore,
    /// Where it is mounted.
    pub path: PathBuf,
    image: PathBuf,
    size: ByteSize,
    // Below /dev/shm, whose tmpfs has no reflink: the image is made and mounted on every machine.
    _directory: TempDir,
    _images: TempDir,
}

impl Mounted {
    pub fn new(size: ByteSize) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run this test as root: it mounts a file system");
        let (directory, images) = (tempfile::tempdir_in("/dev/shm").unwrap(), tempfile::tempdir().unwrap());
        let (path, image) = (directory.path().join("store"), images.path().join("store.xfs"));
        prepare_local_directory(&path, &image, size).unwrap();
        let store = LocalStore::open(path.clone(), Converter::nothing()).unwrap();
        Self { store, path, image, size, _directory: directory, _images: images }
    }

    /// Unmounts and mounts again, as a restart of the machine does.
    pub fn remount(&self) {
        unmount(&self.path);
        prepare_local_directory(&self.path, &self.image, self.size).unwrap();
    }

    /// Every file and folder below `images` and `volumes`.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path.join("images"), self.path.join("volumes")];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }

    pub fn nothing_is_left(&self) {
        assert_eq!(self.files(), Vec::<PathBuf>::new());
    }

    pub fn image_file(&self, place: Place, extension: &str) -> PathBuf {
        self.path.join(format!("images/{}/{}.{extension}", place.project, place.volume))
    }

    pub fn volume_file(&self, place: Place, extension: &str) -> PathBuf {
        self.path.join(format!("volumes/{}/{}.{extension}", place.project, place.volume))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

fn unmount(path: &Path) {
    let status = Command::new("umount").arg(path).status().unwrap();
    assert!(status.success() || std::thread::panicking(), "{} is still in use", path.display());
}
