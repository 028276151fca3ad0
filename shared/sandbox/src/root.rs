//! A root directory of its own: what a program does not see, it can neither read nor connect to.
//!
//! An empty file system in memory, with the directories of libraries and what the caller names, all read-only, and a
//! `/proc` that shows the processes of its own namespace and nothing else of the kernel. The host's directories are
//! unmounted: there is no path to them. Files that are open already stay open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

/// Where the loader and the C library look for libraries.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// Where the new root is put together; nothing is ever written to what is there.
const PLACES: [&str; 3] = ["/tmp", "/run", "/mnt"];

/// Room for directories and links, no more.
const ROOM: &str = "size=64k,nr_inodes=256,mode=0755";

const NOTHING: Option<&str> = None;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct RootError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What a program sees besides the libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// Directories and files, shown at the same path, read-only.
    pub shown: Vec<PathBuf>,
    /// A directory shown like these in which it may make files, for a program that makes its own socket.
    pub writable: Option<PathBuf>,
    /// Where it begins; one of those shown, or below it.
    pub directory: PathBuf,
}

fn fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError + use<> {
    let path = path.to_owned();
    move |source| RootError { doing, path, source }
}

/// A handle that needs no right to read.
fn handle(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_PATH.bits()).open(path)
}

impl Root {
    /// Makes the root directory and enters it. The caller is root in a mount namespace of its own whose mounts are
    /// not told to others.
    ///
    /// # Errors
    /// When something that is to be shown is absent, or the kernel refuses.
    pub fn enter(&self) -> Result<(), RootError> {
        // What is shown may be below the place where the root is put together: it is opened before.
        let mut shown = Vec::new();
        let mut links = Vec::new();
        for path in LIBRARIES.into_iter().map(Path::new) {
            if let Ok(to) = fs::read_link(path) {
                links.push((path, to));
            } else if let Ok(opened) = handle(path) {
                shown.push((path, opened));
            }
        }
        for path in self.shown.iter().chain(&self.writable) {
            shown.push((path, handle(path).map_err(fault("opening", path))?));
        }
        let place = PLACES.into_iter().map(Path::new).find(|place| place.is_dir());
        let place =
            place.ok_or_else(|| fault("finding", Path::new("/tmp"))(io::ErrorKind::NotFound.into()))?;
        let before = umask(Mode::from_bits_truncate(0o022));
        let refused = |doing, path| move |error: nix::Error| fault(doing, path)(error.into());

        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), place, Some("tmpfs"), safe, Some(ROOM)).map_err(refused("mounting", place))?;
        for (path, to) in links {
            let link = below(place, path)?;
            symlink(to, &link).map_err(fault("linking", path))?;
        }
        for (path, opened) in shown {
            let at = below(place, path)?;
            if opened.metadata().is_ok_and(|meta| meta.is_dir()) {
                fs::create_dir_all(&at).map_err(fault("making", path))?;
            } else {
                File::create(&at).map_err(fault("making", path))?;
            }
            let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
            mount(Some(&*source), &at, NOTHING, MsFlags::MS_BIND, NOTHING)
                .map_err(refused("showing", path))?;
            let written = self.writable.as_deref() == Some(path);
            let read_only = if written { MsFlags::MS_NOEXEC } else { MsFlags::MS_RDONLY };
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | read_only | safe;
            mount(NOTHING, &at, NOTHING, flags, NOTHING).map_err(refused("protecting", path))?;
        }
        proc_mount(&below(place, Path::new("/proc"))?)?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | safe;
        mount(NOTHING, place, NOTHING, flags, Some(ROOM)).map_err(refused("protecting", place))?;

        umask(before);
        // The old root is put over the new one, and taken away from there.
        chdir(place).map_err(refused("entering", place))?;
        pivot_root(".", ".").map_err(refused("turning the root to", place))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(refused("leaving", Path::new("/")))?;
        chdir(&self.directory).map_err(refused("entering", &self.directory))
    }
}

/// Puts a `/proc` of our own process id namespace over the host's. The host's mounts go on being seen, ours are not.
///
/// # Errors
/// When the kernel refuses.
pub fn own_processes() -> nix::Result<()> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING)
}

/// The path below the new root, with the directories above it.
fn below(place: &Path, path: &Path) -> Result<PathBuf, RootError> {
    let at = place.join(path.strip_prefix("/").unwrap_or(path));
    let above = at.parent().unwrap_or(place);
    fs::create_dir_all(above).map_err(fault("making", path))?;
    Ok(at)
}

/// A `/proc` with processes only, where the kernel can (5.8).
fn proc_mount(at: &Path) -> Result<(), RootError> {
    fs::create_dir_all(at).map_err(fault("making", at))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, Some("subset=pid"))
        .or_else(|_| mount(Some("proc"), at, Some("proc"), flags, NOTHING))
        .map_err(|error| fault("mounting", at)(error.into()))
}
