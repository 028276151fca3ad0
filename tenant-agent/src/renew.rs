//! `bmi-agent renew`: gives what runs another program than the one that is installed a new run, one at a time.
//!
//! Starting is the work of the agent that runs: here a process is ended, as if it had ended by itself, and its next run is
//! waited for. A node's I/O stands still until then. Nothing that was acknowledged is lost: a target flushes when it is
//! ended by SIGTERM.
//!
//! Invariant: the next is not touched before the one before listens again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::{Config, ConfigError, ContainerSection, Driver};
use crate::drivers::container::engine::{Engine, EngineError};
use crate::drivers::container::name_of;
use crate::drivers::process::record::{Record, Run};
use crate::ledger::{Ledger, LedgerError};
use crate::plan::names::ProcessId;

/// How long an agent that was started a moment ago may take.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to flush and end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long its next run may take to listen: a broker may have to wait until Ceph gives up the lock of the one before.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Why not everything was renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Other users' processes are to be ended.
    #[error("only root can end what the agent runs")]
    NotRoot,
    /// Nobody would start anything.
    #[error("the agent of {0} does not run, and would have to start what is ended here; start it first")]
    NoAgent(PathBuf),
    /// The driver is `container`, and nothing says how.
    #[error("the configuration has no [container] section")]
    NoSection,
    /// The engine.
    #[error("asking which images run")]
    Engine(#[from] EngineError),
    /// The agent's memory.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file or a process.
    #[error("{doing} {id}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Of which process.
        id: ProcessId,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The agent has another configuration, or its programs are elsewhere.
    #[error(
        "{0} was started again and still runs another program than the one that is installed: restart the agent, which reads \
         its configuration only then"
    )]
    Still(ProcessId),
    /// It does not come back.
    #[error(
        "{0} was ended and does not listen again within {1} s; see the agent's log. What comes after it was not touched"
    )]
    Late(ProcessId, u64),
}

/// What a process should be running.
enum Program {
    /// This file.
    File(PathBuf),
    /// This image.
    Image(String),
}

/// What is looked at.
struct Host {
    config: Config,
    engine: Option<(Engine, ContainerSection)>,
}

impl Host {
    fn of(config: Config) -> Result<Self, RenewError> {
        let engine = match config.driver {
            Driver::Container => {
                let section = config.container.clone().ok_or(RenewError::NoSection)?;
                Some((Engine::new(section.engine.clone()), section))
            }
            Driver::Process | Driver::Tgt => None,
        };
        Ok(Self { config, engine })
    }

    fn record(&self, id: ProcessId) -> Option<Record> {
        Record::load(&self.config.run_dir().join(id.to_string())).filter(|record| record.run.lives())
    }

    /// Everything that runs, boot services first.
    fn running(&self) -> Vec<(ProcessId, Run)> {
        let entries = fs::read_dir(self.config.run_dir()).into_iter().flatten();
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut found: Vec<_> = ids.filter_map(|id| Some((id, self.record(id)?.run))).collect();
        found.sort_by_key(|(id, _)| *id);
        found
    }

    fn installed(&self, id: ProcessId) -> Program {
        match (&self.engine, id, self.config.driver) {
            (_, ProcessId::Broker(_), _) => Program::File(self.config.broker_program()),
            (Some((_, section)), ProcessId::Netboot, _) => Program::Image(section.netboot_image.to_string()),
            (Some((_, section)), ProcessId::Target(_), _) => Program::Image(section.target_image.to_string()),
            (None, ProcessId::Netboot, _) => Program::File(self.config.netboot_program()),
            (None, ProcessId::Target(_), Driver::Tgt) => Program::File(self.config.tgtd_program()),
            (None, ProcessId::Target(_), _) => Program::File(self.config.target_program()),
        }
    }

    /// Whether a process runs what is installed.
    async fn is_current(&self, id: ProcessId, run: &Run) -> Result<bool, RenewError> {
        match (self.installed(id), &self.engine) {
            (Program::Image(wanted), Some((engine, _))) => {
                let runs = engine.image_of(&name_of(&self.config.bridge, id)).await?;
                Ok(runs.is_some_and(|runs| digest(&runs) == digest(&wanted)))
            }
            (Program::Image(_), None) => Err(RenewError::NoSection),
            (Program::File(installed), _) => {
                let runs = PathBuf::from(format!("/proc/{}/exe", run.pid));
                let io = |source| RenewError::Io { doing: "looking at the program of", id, source };
                is_same(&runs, &installed).map_err(io)
            }
        }
    }

    /// Ends a process and waits until its next run listens.
    fn renew(&self, id: ProcessId, run: &Run) -> Result<(), RenewError> {
        // Stock tgtd does not end on SIGTERM while it has a target, and keeps nothing back.
        let is_stock = matches!((id, self.config.driver), (ProcessId::Target(_), Driver::Tgt));
        let signals: &[Signal] = if is_stock { &[Signal::KILL] } else { &[Signal::TERM, Signal::KILL] };
        for signal in signals {
            signal_to(run, *signal).map_err(|source| RenewError::Io { doing: "ending", id, source })?;
            if holds_within(END_TIMEOUT, || Ok(!run.lives()))? {
                break;
            }
        }
        let again = || {
            let next = self.record(id).map(|record| record.run).filter(|next| next != run);
            let ledger = Ledger::load(&self.config.agent_dir())?;
            Ok(next.is_some_and(|next| ledger.kept.listening.get(&id) == Some(&next.name())))
        };
        match holds_within(LISTEN_TIMEOUT, again)? {
            true => Ok(()),
            false => Err(RenewError::Late(id, LISTEN_TIMEOUT.as_secs())),
        }
    }
}

/// An image's digest, which engines write with and without the name of its algorithm.
fn digest(image: &str) -> &str {
    image.trim_start_matches("sha256:")
}

/// Whether two files are one, or hold the same.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (first, second) = (fs::metadata(one)?, fs::metadata(other)?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(true);
    }
    Ok(first.len() == second.len() && fs::read(one)? == fs::read(other)?)
}

/// Sends a signal to a run that lives; one that has ended is as good.
fn signal_to(run: &Run, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(run.pid) else { return Ok(()) };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at again with the handle open: it is the right one.
    if run.lives() { Ok(pidfd_send_signal(handle, signal)?) } else { Ok(()) }
}

fn holds_within(
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool, RenewError>,
) -> Result<bool, RenewError> {
    let until = Instant::now() + limit;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether an agent works for this configuration: its helper holds the lock.
fn is_served(config: &Config) -> bool {
    let lock = fs::File::open(config.state_dir.join("lock"));
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// Renews what is outdated, or everything; or only says what would be.
///
/// # Errors
/// When something cannot be found out or does not come back; what comes after it is not touched then.
#[expect(clippy::print_stdout, reason = "the answer to the command")]
pub fn renew(path: &Path, all: bool, dry: bool) -> Result<(), RenewError> {
    let host = Host::of(Config::load(path)?)?;
    if !geteuid().is_root() {
        return Err(RenewError::NotRoot);
    }
    if !dry && !holds_within(AGENT_TIMEOUT, || Ok(is_served(&host.config)))? {
        return Err(RenewError::NoAgent(host.config.state_dir));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| RenewError::Io { doing: "looking at", id: ProcessId::Netboot, source })?;
    let mut renewed = 0;
    for (id, run) in host.running() {
        let current = runtime.block_on(host.is_current(id, &run))?;
        if current && !all {
            continue;
        }
        let why = if current { "runs what is installed" } else { "runs an older program" };
        if dry {
            println!("{id} {why}");
        } else {
            let since = Instant::now();
            host.renew(id, &run)?;
            let next = host.record(id).map(|record| record.run);
            match next {
                Some(next) if runtime.block_on(host.is_current(id, &next))? => {}
                _ => return Err(RenewError::Still(id)),
            }
            println!("{id} {why}: renewed in {:.1} s", since.elapsed().as_secs_f64());
        }
        renewed += 1;
    }
    if renewed == 0 {
        println!("everything runs what is installed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_same_by_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, same, other) = (file("a", "one"), file("b", "one"), file("c", "two"));
        assert!(is_same(&one, &one).unwrap() && is_same(&one, &same).unwrap());
        assert!(!is_same(&one, &other).unwrap());
        assert!(is_same(&one, &directory.path().join("d")).is_err());
        assert_eq!(digest("sha256:ab"), digest("ab"));
    }
}
