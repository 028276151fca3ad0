//! What a converting process is before it is `qemu-img`: `bmi-control-plane convert`, started by [`super::Converter`]
//! as the first process of a process id namespace.
//!
//! It reads its order on standard input, opens the two files, enters namespaces of its own without any interface, and
//! becomes the tool inside the barriers of `bmi_sandbox`. It has one thread all the time.
//!
//! The order names files by the descriptors of the process that sent it: what is converted is what was looked at,
//! whatever became of its name.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use bmi_sandbox::{DiesWith, Limits, Profile, ProfileError, Reach, Root, Sandbox, SandboxError};
use bmi_types::{ByteSize, ImageFormat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, setsid};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

/// The name of the hidden command.
pub const COMMAND: &str = "convert";

/// The longest order.
const ORDER_MAX: u64 = 64 * 1024;

/// The tool opens its libraries, two files and what its event loop needs.
const OPEN_FILES: u64 = 128;

/// Threads: the tool has one per file operation that is under way, at most 64, and two of its own.
const TASKS: u64 = 80;

/// Memory: tables of the image and eight buffers of 2 MiB.
const MEMORY: u64 = 512 * 1024 * 1024;

/// The exit status when the tool was not started; it has 0 and 1 itself.
pub const NOT_STARTED: u8 = 111;

/// What to convert.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `qemu-img`.
    pub program: PathBuf,
    /// As whom.
    pub user: u32,
    /// The source, which is only read.
    pub source: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// The destination, which has its size already.
    pub destination: PathBuf,
    /// That size.
    pub size: ByteSize,
    /// Seconds of processor time.
    pub processor_seconds: u64,
}

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("reading the order")]
    Order(#[source] io::Error),
    #[error("opening {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("entering namespaces of its own")]
    Namespace(#[source] nix::Error),
    #[error("preparing the process")]
    Prepare(#[source] io::Error),
    #[error("choosing its system calls")]
    Profile(#[from] ProfileError),
    #[error("fencing it in")]
    Sandbox(#[from] SandboxError),
    #[error("starting the tool")]
    Program(#[source] io::Error),
}

/// Runs the launcher. It returns only when something went wrong.
#[expect(clippy::print_stderr, reason = "standard error is where who started it hears what is wrong")]
pub fn run() -> ExitCode {
    let Err(error) = launch();
    eprintln!("{}", bmi_types::chain(&error));
    ExitCode::from(NOT_STARTED)
}

fn launch() -> Result<std::convert::Infallible, LaunchError> {
    let prepare = LaunchError::Prepare;
    let mut order = Vec::new();
    io::stdin().take(ORDER_MAX).read_to_end(&mut order).map_err(LaunchError::Order)?;
    let order: Order = serde_json::from_slice(&order).map_err(|error| LaunchError::Order(error.into()))?;
    let open = |path: &PathBuf, write| {
        let opened = OpenOptions::new().read(true).write(write).open(path);
        opened.map_err(|source| LaunchError::Open { path: path.clone(), source })
    };
    let program = open(&order.program, false)?;
    let (source, destination) = (open(&order.source, false)?, open(&order.destination, true)?);
    let null = open(&PathBuf::from("/dev/null"), false)?;

    setsid().map_err(|error| prepare(error.into()))?;
    let own = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNS;
    unshare(own).map_err(LaunchError::Namespace)?;
    bmi_sandbox::root::own_processes().map_err(LaunchError::Namespace)?;
    dup2_stdin(&null).map_err(|error| prepare(error.into()))?;
    let kept: Vec<i32> = [&program, &source, &destination].iter().map(|file| file.as_raw_fd()).collect();
    bmi_sandbox::descriptors::close_others(&kept).map_err(prepare)?;
    for file in [&source, &destination] {
        fcntl_setfd(file, FdFlags::empty()).map_err(|error| prepare(error.into()))?;
    }
    umask(Mode::from_bits_truncate(0o077));
    enter(&order, &program, &source, &destination)?;

    let named = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let error = Command::new(named(&program))
        .arg0("qemu-img")
        // Nothing is created, and what is not written stays a hole. Both formats are said, so nothing is probed.
        .args(["convert", "-p", "-n", "--target-is-zero", "-O", "raw", "-f", order.format.as_str(), "--"])
        .args([named(&source), named(&destination)])
        .env_clear()
        .exec();
    Err(LaunchError::Program(error))
}

fn enter(order: &Order, program: &File, source: &File, destination: &File) -> Result<(), LaunchError> {
    let limits = Limits {
        open_files: OPEN_FILES,
        tasks: TASKS,
        file_size: order.size.bytes(),
        memory: MEMORY,
        processor_seconds: Some(order.processor_seconds),
    };
    let reach = Reach {
        program: Some(program.as_fd()),
        read: vec![source.as_fd()],
        write: vec![destination.as_fd()],
        read_below: vec![PathBuf::from("/proc")],
        make_below: None,
        listen: &[],
        connect: &[],
    };
    let sandbox = Sandbox {
        user: order.user,
        root: Root { directory: PathBuf::from("/"), ..Root::default() },
        limits,
        reach,
        profile: &Profile::of("qemu-img")?,
        without: BTreeSet::new(),
        dies_with: DiesWith::Parent,
    };
    Ok(sandbox.enter()?)
}
