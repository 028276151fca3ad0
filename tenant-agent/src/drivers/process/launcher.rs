//! The launcher: `bmi-agent launch`, which becomes the target or the boot services.
//!
//! It was started as the first process of a process id namespace, so what it becomes takes everything it ever started
//! with it when it ends, and it is shown only those. It enters a network namespace of its own with nothing in it, says
//! so, and waits while the helper puts the firewall and then the interface there. On the order to go it opens the
//! volumes, gives up every right and becomes the program. A broker has no interface: it stays where Ceph is reached. It has one thread all the time. When the helper ends while it
//! waits, it ends too, and the kernel removes the namespace with everything in it.
//!
//! Volumes are opened here, beneath the volume directory and without following any link, and are handed over as open
//! files: the program needs no right to any directory on the way, and a path that changes later changes nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bmi_sandbox::{Barrier, DiesWith, Limits, Profile, ProfileError, Reach, Root, Sandbox, SandboxError};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, setsid};
use rustix::fs::{Mode as OpenMode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::super::firewall::TRANSFER_PORTS;
use super::broker::{self, OrderBroker};
use crate::helper::frame;

/// Said when the namespace is there.
pub const READY: u8 = b'R';

/// Open files a process may have: the boot services serve 1024 connections and 128 transfers.
pub const OPEN_FILES: u64 = 4096;

/// Processes and threads its user may have.
pub const TASKS: u64 = 64;

/// Memory it may write to: the boot services' transfers and a target's commands need a few dozen MiB, and each of
/// [`TASKS`] may have a stack of 2 MiB.
pub const MEMORY: u64 = 256 * 1024 * 1024;

/// The same for a stock program: tgtd has 170 MiB of it with one volume and four threads.
pub const STOCK_MEMORY: u64 = 1024 * 1024 * 1024;

/// Settings of the new namespace: low ports without rights, TFTP's source ports, no IPv6.
pub const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// The order to go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to become.
    pub program: PathBuf,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// As whom; the group has the same number.
    pub uid: u32,
    /// In which directory.
    pub directory: PathBuf,
    /// Where volumes are; nothing when it has none.
    pub volume_dir: Option<PathBuf>,
    /// Which of them to open. Each adds a `--lun` argument.
    pub luns: Vec<OrderLun>,
    /// Which system calls it may make: the name of a profile.
    pub profile: String,
    /// What else it may read, besides its directory.
    pub shown: Vec<PathBuf>,
    /// TCP ports it may listen on.
    pub ports: Vec<u16>,
    /// Barriers that are left out.
    pub without: BTreeSet<Barrier>,
    /// What a broker has besides.
    #[serde(default)]
    pub broker: Option<OrderBroker>,
    /// What a stock program has besides.
    #[serde(default)]
    pub stock: Option<OrderStock>,
}

/// A program that is not ours, and is told of its volumes later.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderStock {
    /// Where it makes its own socket: the one directory that it may write to.
    pub control: PathBuf,
    /// Its environment.
    pub environment: Vec<(String, String)>,
}

/// The first descriptor of a stock program's volumes, one after another: above any that the launcher has itself.
const FIRST_VOLUME: i32 = 64;

/// Where a stock program finds its volume of this position.
#[must_use]
pub fn volume_of_stock(position: usize) -> String {
    format!("/proc/self/fd/{}", usize::try_from(FIRST_VOLUME).unwrap_or_default() + position)
}

/// One volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderLun {
    /// Its number.
    pub lun: u16,
    /// Its file, relative to the volume directory.
    pub path: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What went wrong on the way; sent to the helper.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("talking to the helper")]
    Channel(#[source] io::Error),
    #[error("entering a new network namespace")]
    Namespace(#[source] nix::Error),
    #[error("mounting /proc")]
    Mount(#[source] nix::Error),
    #[error("setting {path}")]
    Setting {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("opening the volume {path}")]
    Volume {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the volume {0} is not an ordinary file with one name")]
    NotAFile(PathBuf),
    #[error("entering the network of Ceph")]
    Network(#[source] io::Error),
    #[error("making the broker's socket")]
    Socket(#[source] io::Error),
    #[error("preparing the process")]
    Prepare(#[source] io::Error),
    #[error("choosing its system calls")]
    Profile(#[from] ProfileError),
    #[error("fencing it in")]
    Sandbox(#[from] SandboxError),
    #[error("starting {program}")]
    Program {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Runs the launcher. It returns only when something went wrong.
pub fn run(network: Option<&Path>) -> ExitCode {
    let Ok(channel) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut channel = UnixStream::from(channel);
    match launch(&mut channel, network) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = channel.write_all(bmi_types::chain(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn launch(channel: &mut UnixStream, network: Option<&Path>) -> Result<(), LaunchError> {
    setsid().map_err(|error| LaunchError::Prepare(error.into()))?;
    let own = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS;
    match network {
        None => own_network(own)?,
        Some(network) => {
            broker::network_enter(network).map_err(LaunchError::Network)?;
            unshare(own).map_err(LaunchError::Namespace)?;
        }
    }
    bmi_sandbox::root::own_processes().map_err(LaunchError::Mount)?;
    channel.write_all(&[READY]).map_err(LaunchError::Channel)?;
    // The end of the stream: the helper has gone or gave up. There is nothing to undo.
    let Some(order) = frame::read_blocking::<Order>(channel).map_err(LaunchError::Channel)? else {
        return Ok(());
    };
    become_program(order, channel)
}

/// Enters an empty network namespace, and the others.
fn own_network(others: CloneFlags) -> Result<(), LaunchError> {
    unshare(CloneFlags::CLONE_NEWNET | others).map_err(LaunchError::Namespace)?;
    let (first, last) = TRANSFER_PORTS;
    let range = ("/proc/sys/net/ipv4/ip_local_port_range", &*format!("{first} {last}"));
    for (path, value) in SETTINGS.into_iter().chain([range]) {
        match fs::write(path, value) {
            // A kernel without IPv6 needs none of its settings.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written.map_err(|source| LaunchError::Setting { path, source })?,
        }
    }
    Ok(())
}

/// The largest file that is written: the largest volume that is. Writing beyond its end fails, and the boot services
/// write no file at all.
pub fn largest_written(luns: &[OrderLun], volumes: &[File]) -> io::Result<u64> {
    let mut written = luns.iter().zip(volumes).filter(|(lun, _)| !lun.read_only);
    written.try_fold(0, |most, (_, volume)| Ok(volume.metadata()?.len().max(most)))
}

fn become_program(order: Order, channel: &UnixStream) -> Result<(), LaunchError> {
    let prepare = LaunchError::Prepare;
    let program = File::open(&order.program)
        .map_err(|source| LaunchError::Program { program: order.program.clone(), source })?;
    let volumes = order
        .luns
        .iter()
        .map(|lun| volume_open(order.volume_dir.as_deref(), lun, order.uid))
        .collect::<Result<Vec<_>, _>>()?;
    let volumes = if order.stock.is_some() { volumes_place(&volumes).map_err(prepare)? } else { volumes };
    let written = largest_written(&order.luns, &volumes).map_err(prepare)?;
    std::env::set_current_dir(&order.directory).map_err(prepare)?;
    let null = OpenOptions::new().read(true).open("/dev/null").map_err(prepare)?;
    let prepared = order
        .broker
        .as_ref()
        .map(|it| broker::prepare(it, order.uid))
        .transpose()
        .map_err(LaunchError::Socket)?;

    let mut arguments: Vec<OsString> = order.arguments.iter().map(OsString::from).collect();
    let mut kept = vec![channel.as_raw_fd(), program.as_raw_fd(), null.as_raw_fd()];
    for (lun, volume) in order.luns.iter().zip(&volumes) {
        fcntl_setfd(volume, FdFlags::empty()).map_err(|error| prepare(error.into()))?;
        let descriptor = volume.as_raw_fd();
        kept.push(descriptor);
        if order.stock.is_some() {
            continue;
        }
        let read_only = if lun.read_only { ",ro" } else { "" };
        arguments.push("--lun".into());
        arguments.push(format!("{}=file:/proc/self/fd/{descriptor}{read_only}", lun.lun).into());
    }
    let clients = prepared.as_ref().map(|prepared| &prepared.clients);
    if let Some(clients) = clients {
        fcntl_setfd(clients, FdFlags::empty()).map_err(|error| prepare(error.into()))?;
        arguments.extend(["--clients".into(), format!("/proc/self/fd/{}", clients.as_raw_fd()).into()]);
    }
    let input = prepared.as_ref().map_or(null.as_fd(), |prepared| prepared.listener.as_fd());
    kept.extend(clients.map(AsRawFd::as_raw_fd).into_iter().chain([input.as_raw_fd()]));
    bmi_sandbox::descriptors::close_others(&kept).map_err(prepare)?;
    dup2_stdin(input).map_err(|error| prepare(error.into()))?;

    umask(Mode::from_bits_truncate(0o077));
    let profile = Profile::of(&order.profile)?;
    let limits = match order.broker {
        None => Limits {
            open_files: OPEN_FILES,
            tasks: TASKS,
            file_size: written,
            memory: if order.stock.is_some() { STOCK_MEMORY } else { MEMORY },
            processor_seconds: None,
        },
        Some(_) => broker::LIMITS,
    };
    let shown: Vec<PathBuf> = order.shown.iter().chain([&order.directory]).cloned().collect();
    let opened = |read_only| {
        let luns = order.luns.iter().zip(&volumes).filter(move |(lun, _)| lun.read_only == read_only);
        luns.map(|(_, volume)| volume.as_fd()).collect::<Vec<_>>()
    };
    let reach = Reach {
        program: Some(program.as_fd()),
        read: opened(true),
        write: opened(false).into_iter().chain(clients.map(AsFd::as_fd)).collect(),
        read_below: shown.iter().cloned().chain([PathBuf::from("/proc")]).collect(),
        listen: &order.ports,
        make_below: order.stock.as_ref().map(|stock| stock.control.clone()),
        connect: order.broker.as_ref().map(|broker| &*broker.connect).unwrap_or_default(),
    };
    let writable = order.stock.as_ref().map(|stock| stock.control.clone());
    let root = Root { shown, writable, directory: order.directory };
    Sandbox {
        user: order.uid,
        root,
        limits,
        reach,
        profile: &profile,
        without: order.without,
        dies_with: DiesWith::Nobody,
    }
    .enter()?;
    // By its open file: the directories on the way may be closed to this user.
    let source = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0(order.program.file_name().unwrap_or_default())
        .args(arguments)
        .env_clear()
        .envs(order.stock.into_iter().flat_map(|stock| stock.environment))
        .exec();
    Err(LaunchError::Program { program: order.program, source })
}

/// Puts volumes where [`volume_of_stock`] says that they are.
fn volumes_place(volumes: &[File]) -> io::Result<Vec<File>> {
    let place = |(at, volume): (i32, &File)| {
        let placed = fcntl_dupfd_cloexec(volume, at)?;
        if placed.as_raw_fd() == at {
            Ok(File::from(placed))
        } else {
            Err(io::Error::other(format!("the descriptor {at} is taken")))
        }
    };
    (FIRST_VOLUME..).zip(volumes).map(place).collect()
}

/// Opens a volume for a process of `uid`: it may then read it, and write it unless it is read-only.
///
/// # Errors
/// When it is no ordinary file beneath the directory, or the file system refuses.
pub fn volume_open(directory: Option<&Path>, lun: &OrderLun, uid: u32) -> Result<File, LaunchError> {
    let fault = |source| LaunchError::Volume { path: lun.path.clone(), source };
    let directory = directory.ok_or_else(|| fault(io::Error::from(io::ErrorKind::NotFound)))?;
    let base = File::open(directory).map_err(fault)?;
    let file = beneath(&base, &lun.path, !lun.read_only).map_err(fault)?;
    let meta = file.metadata().map_err(fault)?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(LaunchError::NotAFile(lun.path.clone()));
    }
    // Read-only is root's file that the group may read: not even its own user can make it writable.
    let (owner, mode) = if lun.read_only { (0, 0o640) } else { (uid, 0o600) };
    fchown(&file, Some(owner), Some(uid)).map_err(fault)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fault)?;
    Ok(file)
}

/// Opens a file beneath a directory without following any link on the way (openat2).
fn beneath(base: &File, path: &Path, write: bool) -> io::Result<File> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(File::from(openat2(base, path, flags, OpenMode::empty(), resolve)?))
}

/// Gives a volume that was handed to a process of `uid` back to root, so that the next process with this user id cannot
/// open it. One that is absent, or was never handed over, is left alone; so is a link, which no launcher follows.
///
/// # Errors
/// When the file system refuses.
pub fn volume_take_back(directory: &Path, path: &Path, uid: u32) -> io::Result<()> {
    let file = match beneath(&File::open(directory)?, path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Ok(()),
        Err(error) => return Err(error),
    };
    if file.metadata()?.gid() != uid {
        return Ok(());
    }
    fchown(&file, Some(0), Some(0))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// The helper's side: waits until the namespace is there.
///
/// # Errors
/// When the launcher ended instead; with its reason.
pub fn await_ready(channel: &mut impl Read) -> io::Result<()> {
    let mut first = [0];
    channel.read_exact(&mut first)?;
    if first == [READY] {
        return Ok(());
    }
    let mut reason = vec![first[0]];
    channel.take(1024).read_to_end(&mut reason)?;
    Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_volume_directory_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let base = File::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("p")).unwrap();
        fs::write(directory.path().join("p/v.raw"), b"x").unwrap();
        assert!(beneath(&base, Path::new("p/v.raw"), true).is_ok());
        std::os::unix::fs::symlink(outside.path(), directory.path().join("link")).unwrap();
        std::os::unix::fs::symlink("v.raw", directory.path().join("p/inner")).unwrap();
        let absolute = outside.path().to_str().unwrap();
        for bad in ["link", "p/inner", "../etc/passwd", "p/../../x", absolute, "absent"] {
            assert!(beneath(&base, Path::new(bad), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_absent_volume_or_a_link_is_not_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("x", directory.path().join("link")).unwrap();
        fs::write(directory.path().join("file"), b"x").unwrap();
        for nothing in ["absent", "absent/v.raw", "link"] {
            assert!(volume_take_back(directory.path(), Path::new(nothing), 7).is_ok(), "{nothing}");
        }
        assert!(volume_take_back(directory.path(), Path::new("file/v.raw"), 7).is_err(), "not a directory");
    }

    #[test]
    fn a_process_writes_no_file_larger_than_its_largest_volume() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, size| {
            let file = File::create(directory.path().join(name)).unwrap();
            file.set_len(size).unwrap();
            file
        };
        let volumes = [file("a", 4096), file("b", 8192), file("golden", 1 << 20)];
        let lun = |lun, read_only| OrderLun { lun, path: PathBuf::new(), read_only };
        assert_eq!(largest_written(&[lun(0, false), lun(1, false), lun(2, true)], &volumes).unwrap(), 8192);
        assert_eq!(largest_written(&[], &[]).unwrap(), 0);
    }
}
