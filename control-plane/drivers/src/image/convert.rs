//! Converting an image file into a raw disk, by a tool in a sandbox (see [`super::launcher`]).
//!
//! One thread per conversion starts the launcher, hears its progress and waits for it; the tool ends with that thread,
//! and so with this process, however that ends. What a tool says is bounded and never trusted: whether the disk is
//! right is what its exit status says, and what it wrote is bounded by the sandbox.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bmi_types::{ByteSize, ImageFormat};
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::launcher::{COMMAND, NOT_STARTED, Order};

/// How often it is looked whether anybody still wants the disk.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What is kept of the tool's last words.
const WORDS_MAX: usize = 4096;

/// Processor time: a minute, and a second for each of so many bytes of the disk. zlib does 100 MiB a second and more.
const SECONDS_LEAST: u64 = 60;
const BYTES_PER_SECOND: u64 = 8 << 20;

/// Time: so much, and a second for each of so many bytes of the disk. It is given up then.
const PATIENCE_LEAST: Duration = Duration::from_secs(600);
const SLOWEST: u64 = 1 << 20;

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum ConverterError {
    /// Conversion needs root: without it there would be no sandbox.
    #[error(
        "this server is not run as root and so cannot fence a converter in; convert the image with `qemu-img convert -O raw` and send it as raw"
    )]
    NotRoot,
    /// There is no tool.
    #[error("{0} is not there; install qemu-utils, or send the image as raw")]
    NoProgram(PathBuf),
    /// The operating system.
    #[error("starting the converter")]
    Start(#[source] io::Error),
    /// The sandbox.
    #[error("the converter was not started: {0}")]
    Sandbox(String),
    /// The tool found the image wrong, or did what no honest tool does.
    #[error("the image cannot be converted: {0}")]
    Failed(String),
    /// It was ended from outside.
    #[error("the converter was ended by signal {0}")]
    Ended(i32),
    /// Nobody wants the disk any more.
    #[error("the conversion was given up")]
    GivenUp,
}

/// The tool and its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converter {
    /// `qemu-img`.
    pub program: PathBuf,
    /// Who it runs as; nobody else does.
    pub user: u32,
    /// What starts it: this program, whose hidden command is [`super::launcher::run`].
    pub launcher: PathBuf,
}

/// One conversion.
#[derive(Debug)]
pub struct Conversion<'a> {
    /// What is read.
    pub source: &'a File,
    /// Its format.
    pub format: ImageFormat,
    /// What is written: an empty file of the disk's size.
    pub destination: &'a File,
    /// The disk's size.
    pub size: ByteSize,
}

impl Converter {
    /// One without a tool: for stores that only ever get raw disks.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            program: PathBuf::from("/nonexistent"),
            user: u32::MAX,
            launcher: PathBuf::from("/nonexistent"),
        }
    }

    /// Whether anything can be converted here.
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub fn ready(&self) -> Result<(), ConverterError> {
        self.ready_as(rustix::process::geteuid())
    }

    fn ready_as(&self, user: rustix::process::Uid) -> Result<(), ConverterError> {
        if !user.is_root() {
            return Err(ConverterError::NotRoot);
        }
        if !self.program.is_file() {
            return Err(ConverterError::NoProgram(self.program.clone()));
        }
        Ok(())
    }

    /// Converts. Blocks until the tool has ended. Both files are the tool's meanwhile, and root's afterwards.
    ///
    /// # Errors
    /// See [`ConverterError`]; the destination then holds anything.
    pub fn convert(
        &self,
        conversion: &Conversion<'_>,
        progress: &dyn Fn(u64),
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), ConverterError> {
        self.ready()?;
        let own = |file: &File, user, mode| {
            fchown(file, Some(user), Some(user))?;
            file.set_permissions(Permissions::from_mode(mode))
        };
        let files = [(conversion.source, 0o400), (conversion.destination, 0o600)];
        files
            .into_iter()
            .try_for_each(|(file, mode)| own(file, self.user, mode))
            .map_err(ConverterError::Start)?;
        let ended = self.run(conversion, progress, wanted);
        let back = files.into_iter().try_for_each(|(file, _)| own(file, 0, 0o600));
        ended.and_then(|()| back.map_err(ConverterError::Start))
    }

    fn run(
        &self,
        conversion: &Conversion<'_>,
        progress: &dyn Fn(u64),
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), ConverterError> {
        let descriptor =
            |file: &File| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        let order = Order {
            program: self.program.clone(),
            user: self.user,
            source: descriptor(conversion.source),
            format: conversion.format,
            destination: descriptor(conversion.destination),
            size: conversion.size,
            processor_seconds: SECONDS_LEAST + conversion.size.bytes() / BYTES_PER_SECOND,
        };
        let give_up = AtomicBool::new(false);
        let give_up = &give_up;
        // The thread that starts it makes the namespace, and lives as long as it.
        std::thread::scope(|scope| {
            let (sender, said) = sync_channel(16);
            let thread = std::thread::Builder::new().name("converter".to_owned());
            let running = thread
                .spawn_scoped(scope, move || {
                    let still = || !give_up.load(Ordering::Relaxed);
                    supervise(
                        &self.launcher,
                        &order,
                        &|percent| {
                            // Who is behind is told with the next.
                            let _ = sender.try_send(percent);
                        },
                        &still,
                    )
                })
                .map_err(ConverterError::Start)?;
            loop {
                match said.recv_timeout(Duration::from_millis(200)) {
                    Ok(percent) => progress(of(conversion.size, percent)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if !wanted() {
                    give_up.store(true, Ordering::Relaxed);
                }
            }
            running
                .join()
                .unwrap_or_else(|_| Err(ConverterError::Start(io::Error::other("its thread failed"))))
        })
    }
}

/// A share of the disk, in hundredths of a percent.
fn of(size: ByteSize, hundredths: u64) -> u64 {
    (size.bytes() / 10_000).saturating_mul(hundredths.min(10_000))
}

fn supervise(
    launcher: &Path,
    order: &Order,
    progress: &dyn Fn(u64),
    wanted: &dyn Fn() -> bool,
) -> Result<(), ConverterError> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| ConverterError::Start(error.into()))?;
    let mut child = Command::new(launcher)
        .arg0("bmi-control-plane")
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ConverterError::Start)?;
    let mut words = Vec::new();
    let heard = hear(&mut child, order, &mut words, progress, wanted);
    if heard.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(ConverterError::Start)?;
    heard?;
    judge(status, last_line(&words))
}

/// Sends the order and hears what the tool says, until it has ended.
fn hear(
    child: &mut Child,
    order: &Order,
    words: &mut Vec<u8>,
    progress: &dyn Fn(u64),
    wanted: &dyn Fn() -> bool,
) -> Result<(), ConverterError> {
    let start = ConverterError::Start;
    if let Some(mut stdin) = child.stdin.take() {
        serde_json::to_writer(&stdin, order).map_err(|error| start(error.into()))?;
        stdin.flush().map_err(start)?;
    }
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let give_up = Instant::now() + PATIENCE_LEAST + Duration::from_secs(order.size.bytes() / SLOWEST);
    let mut buffer = [0; 256];
    loop {
        if !wanted() {
            return Err(ConverterError::GivenUp);
        }
        if Instant::now() > give_up {
            return Err(ConverterError::Failed("it takes too long".to_owned()));
        }
        if let Some(length) = said(stdout.as_mut(), &mut buffer)? {
            if let Some(hundredths) = percent(buffer.get(..length).unwrap_or_default()) {
                progress(hundredths);
            }
            stdout.take_if(|_| length == 0);
        }
        if let Some(length) = said(stderr.as_mut(), &mut buffer)? {
            words.extend_from_slice(buffer.get(..length).unwrap_or_default());
            words.drain(..words.len().saturating_sub(WORDS_MAX));
            stderr.take_if(|_| length == 0);
        }
        if stdout.is_none() && stderr.is_none() && child.try_wait().map_err(start)?.is_some() {
            return Ok(());
        }
        wait(stdout.as_ref(), stderr.as_ref())?;
    }
}

/// What is there to read; nothing when there is nothing yet, and 0 at the end.
fn said(pipe: Option<&mut (impl Read + AsFd)>, buffer: &mut [u8]) -> Result<Option<usize>, ConverterError> {
    let Some(pipe) = pipe else { return Ok(None) };
    let mut ready = [PollFd::new(pipe, PollFlags::IN)];
    match poll(&mut ready, Some(&Timespec::default())) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
        Ok(_) => pipe.read(buffer).map(Some).map_err(ConverterError::Start),
        Err(errno) => Err(ConverterError::Start(errno.into())),
    }
}

/// Waits until the tool says something, or it is time to look around.
fn wait(stdout: Option<&ChildStdout>, stderr: Option<&ChildStderr>) -> Result<(), ConverterError> {
    let pipes = stdout.map(AsFd::as_fd).into_iter().chain(stderr.map(AsFd::as_fd));
    let mut pipes: Vec<_> = pipes.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)).collect();
    match poll(&mut pipes, Some(&LOOK_EVERY)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(ConverterError::Start(errno.into())),
    }
}

/// The last `(12.34/100%)` in what `qemu-img -p` prints, in hundredths of a percent.
fn percent(said: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(said).ok()?;
    let (number, _) = text.rsplit_once("/100%)")?;
    let (_, number) = number.rsplit_once('(')?;
    let (whole, part) = number.split_once('.')?;
    let (whole, part): (u64, u64) = (whole.trim().parse().ok()?, part.get(..2)?.parse().ok()?);
    whole.checked_mul(100)?.checked_add(part)
}

fn last_line(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let line = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(400).collect()
}

fn judge(status: ExitStatus, words: String) -> Result<(), ConverterError> {
    const SIGSYS: i32 = 31;
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(NOT_STARTED) => Err(ConverterError::Sandbox(words)),
        (Some(code), _) if words.is_empty() => Err(ConverterError::Failed(format!("exit status {code}"))),
        (Some(_), _) => Err(ConverterError::Failed(words)),
        (None, Some(SIGSYS)) => Err(ConverterError::Failed(
            "the converter made a system call that its profile does not allow (seccomp)".to_owned(),
        )),
        (None, Some(SIGXFSZ)) => {
            Err(ConverterError::Failed("the converter wrote beyond the end of the disk".to_owned()))
        }
        (None, Some(SIGXCPU)) => Err(ConverterError::Failed("it takes too much processor time".to_owned())),
        (None, signal) => Err(ConverterError::Ended(signal.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_and_nonsense_is_not() {
        assert_eq!(percent(b"    (12.34/100%)\r"), Some(1234));
        assert_eq!(percent(b"    (1.00/100%)\r    (100.00/100%)\r\n"), Some(10_000));
        for nonsense in [
            &b""[..],
            b"(x/100%)",
            b"(1/100%)",
            b"12.34/100%)",
            b"(99999999999999999999.00/100%)",
            b"\xff(1.00/100%)",
        ] {
            assert_eq!(percent(nonsense), None);
        }
        assert_eq!(of(ByteSize::new(20_000), 1234), 2468);
        assert_eq!(of(ByteSize::new(20_000), u64::MAX), 20_000);
    }

    #[test]
    fn without_root_nothing_is_converted() {
        let converter = Converter { program: "/proc/self/exe".into(), ..Converter::nothing() };
        let as_user = |uid| converter.ready_as(rustix::process::Uid::from_raw(uid));
        assert!(as_user(0).is_ok());
        let refusal = as_user(1000).unwrap_err();
        assert!(matches!(refusal, ConverterError::NotRoot));
        assert!(refusal.to_string().contains("send it as raw"), "{refusal}");
        assert!(matches!(
            Converter::nothing().ready_as(rustix::process::Uid::ROOT),
            Err(ConverterError::NoProgram(_))
        ));
    }

    #[test]
    fn an_end_is_judged() {
        let status = |raw| judge(ExitStatus::from_raw(raw), "why".to_owned());
        assert!(status(0).is_ok());
        assert!(matches!(status(1 << 8), Err(ConverterError::Failed(why)) if why == "why"));
        assert!(matches!(status(111 << 8), Err(ConverterError::Sandbox(_))));
        assert!(matches!(status(9), Err(ConverterError::Ended(9))));
        assert!(matches!(status(25), Err(ConverterError::Failed(why)) if why.contains("beyond")));
        assert!(matches!(status(31), Err(ConverterError::Failed(why)) if why.contains("seccomp")));
    }
}
