//! Targets by stock tgtd, where its support for physical iSCSI is wanted: local volumes of trusted tenants only.
//!
//! One tgtd for each target, wired and fenced in as our own target is, so that the firewall, the node's address and what
//! one of them can take along are the same. tgtd hears the tenant in C and is nobody's to vouch for: it has a user id, a
//! root directory, limits and Landlock as our target has, but no system call filter, since its calls change with its
//! version. Boot services are sandboxed processes as ever; an instance with a volume in Ceph is refused.
//!
//! Starting order: as for a process → tgtd runs and has no target → target, accounts, volumes → does it report what was
//! meant → the initiator may log in. What tgtd reports says which number a volume has: its own controller is LUN 0.
//!
//! tgtd knows no boot numbers. Its account is the newest boot's of which a script was sent; the one before is removed.
//! A second account, whose secret nobody knows, stays: without any account tgtd asks for none.
//!
//! Deliberately absent: `tgtadm`, which takes secrets as arguments; access by tgtd's address list, of which an address
//! *or* a name is enough (the firewall holds the address); taking over from a dead node (tgtd lets several sessions in).

mod control;
mod report;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bmi_agent_api::config::{BOOT_GATE_FILE, BootGate};
use bmi_agent_api::event::{EventSource, NetbootEvent, TargetEvent};
use bmi_sandbox::Barrier;
use bmi_types::{BootKey, BootNumber, BootUser, InstanceId, boot_secret, chain};
use futures::future::join_all;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_local;

use super::process::launcher::{Order, OrderLun, OrderStock, volume_of_stock};
use super::process::record::{Record, Run};
use super::process::watch::kill;
use super::process::{ISCSI_PORT, ProcessDriver, ProcessError};
use super::{Diskless, NewsSink, ProcessConfig};
use crate::config::Config;
use crate::events;
use crate::helper::validate;
use crate::helper::verbs::{Found, Said};
use crate::plan::names::ProcessId;
use crate::plan::spec::{NetworkSpec, ProcessSpec, TargetSpec};
use control::{Control, ControlError};
use report::{Report, Session};

/// Where tgtd makes its control socket, in a process's directory, and what it then calls it.
const CONTROL_DIRECTORY: &str = "control";
const CONTROL_PATH: &str = "s";
const CONTROL_SOCKET: &str = "s.0";

/// How long tgtd may take to answer for the first time, and between two looks.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Threads for each volume: a node has one disk, and tgtd's own default of 16 is meant for many.
const THREADS: &str = "4";

/// tgtd's first number for a volume: 0 is its controller.
const FIRST_UNIT: u16 = 1;

/// The account that stays.
const NOBODY: &str = "nobody";

/// What is said and was not passed on yet.
const NEWS_MAX: usize = 1024;

/// What could not be done to a stock target.
#[derive(Debug, thiserror::Error)]
pub enum TgtError {
    /// As for a process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The driver does not serve Ceph.
    #[error("{0} has volumes in Ceph, which the driver `tgt` does not serve")]
    Remote(ProcessId),
    /// Not a gate, or none that can be read.
    #[error("{0} has no boot gate")]
    Gate(ProcessId),
    /// tgtd's control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It never answered.
    #[error("tgtd of {0} does not answer")]
    Silent(ProcessId),
    /// It did something else.
    #[error("tgtd of {id} reports {fault}")]
    Report {
        /// Which.
        id: ProcessId,
        /// What.
        fault: String,
    },
    /// The kernel's random source.
    #[error("making a secret")]
    Random(#[source] io::Error),
}

/// One tgtd that serves.
struct Served {
    run: Run,
    control: Control,
    /// The boot whose account it has.
    boot: BootNumber,
    luns: BTreeMap<u16, u16>,
    sessions: BTreeMap<u64, Session>,
}

struct Shared {
    base: ProcessDriver,
    news: NewsSink,
    served: RefCell<BTreeMap<InstanceId, Rc<Mutex<Served>>>>,
}

/// The driver. One per helper, on one thread.
pub struct TgtDriver(Rc<Shared>);

impl TgtDriver {
    /// Starts: looks after the processes that are already there.
    ///
    /// # Errors
    /// When there is no netlink or no directory.
    pub fn start(config: Config, news: NewsSink) -> Result<Self, TgtError> {
        let (said, mut heard) = mpsc::channel(NEWS_MAX);
        let shared =
            Rc::new(Shared { base: ProcessDriver::start(config, said)?, news, served: RefCell::default() });
        let hearing = Rc::downgrade(&shared);
        spawn_local(async move {
            while let Some(said) = heard.recv().await {
                let Some(shared) = hearing.upgrade() else { return };
                shared.script_heed(&said).await;
                if shared.news.send(said).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(shared))
    }

    /// Removes everything: for a host that no longer serves this network.
    ///
    /// # Errors
    /// The last fault; the rest was done all the same.
    pub async fn remove_all(&self) -> Result<(), TgtError> {
        let mut result = Ok(());
        for id in self.0.base.directories() {
            result = self.process_remove(id).await.and(result);
        }
        self.0.base.network_take_down().await.map_err(TgtError::from).and(result)
    }
}

impl Shared {
    fn control(&self, target: &TargetSpec) -> Control {
        let directory = self.base.directory(ProcessId::Target(target.instance));
        let socket = directory.join(CONTROL_DIRECTORY).join(CONTROL_SOCKET);
        Control { socket, uid: self.base.uid(target.slot) }
    }

    fn order(&self, target: &TargetSpec, directory: PathBuf) -> Result<Order, ProcessError> {
        let id = ProcessId::Target(target.instance);
        let (config, uid) = (&self.base.config, self.base.uid(target.slot));
        let control = directory.join(CONTROL_DIRECTORY);
        let made = fs::create_dir(&control)
            .and_then(|()| fs::set_permissions(&control, Permissions::from_mode(0o700)))
            .and_then(|()| chown(&control, Some(uid), Some(uid)));
        made.map_err(|source| ProcessError::File { doing: "making the control directory", id, source })?;
        let luns = target.luns.iter().map(|lun| {
            let path = validate::below(config.volume_dir.as_deref(), &lun.path)?;
            Ok(OrderLun { lun: lun.lun, path, read_only: lun.read_only })
        });
        let portal = format!("portal={}:{ISCSI_PORT}", target.address);
        let path = control.join(CONTROL_PATH).to_string_lossy().into_owned();
        Ok(Order {
            program: config.tgtd_program(),
            arguments: ["-f", "-C", "0", "-t", THREADS, "--iscsi", &portal].map(str::to_owned).to_vec(),
            uid,
            volume_dir: config.volume_dir.clone(),
            luns: luns.collect::<Result<Vec<_>, validate::Refusal>>()?,
            // Left out below; what is named must be there all the same.
            profile: "bmi-target".to_owned(),
            shown: Vec::new(),
            ports: vec![ISCSI_PORT],
            without: config.sandbox_without.iter().copied().chain([Barrier::Seccomp]).collect(),
            broker: None,
            stock: Some(OrderStock { control, environment: vec![("TGT_IPC_SOCKET".to_owned(), path)] }),
            directory,
        })
    }

    /// Waits for tgtd's first answer.
    async fn answers(&self, id: ProcessId, control: &Control, run: &Run) -> Result<(), TgtError> {
        let limit = Instant::now() + START_TIMEOUT;
        while let Err(error) = control.show().await {
            if !run.lives() || Instant::now() > limit {
                tracing::debug!(process = %id, error = chain(&error), "no answer");
                return Err(TgtError::Silent(id));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Has a tgtd that runs serve a target, and lets its initiator in when it is as it was meant.
    async fn set_up(&self, target: &TargetSpec, run: &Run, gate: &BootGate) -> Result<Served, TgtError> {
        let (id, control) = (ProcessId::Target(target.instance), self.control(target));
        self.answers(id, &control, run).await?;
        control.target_make(target.iqn.as_str()).await?;
        let key = BootKey::generate().map_err(|error| TgtError::Random(io::Error::other(error)))?;
        let user = BootUser { instance: target.instance, boot: gate.floor };
        control.account_add(NOBODY, boot_secret(&key, user).expose()).await?;
        control.account_add(&user.to_string(), boot_secret(&gate.boot_key, user).expose()).await?;
        for ((position, lun), unit) in target.luns.iter().enumerate().zip(FIRST_UNIT..) {
            control.unit_add(unit, &volume_of_stock(position)).await?;
            let serial = format!("{}{:02x}", target.instance.to_string().replace('-', ""), lun.lun);
            control.unit_set(unit, &serial, lun.read_only).await?;
        }
        let report = Report::read(&control.show().await?);
        let luns = units_of(target, &report).map_err(|fault| TgtError::Report { id, fault })?;
        if report.accounts != [NOBODY.to_owned(), user.to_string()] {
            let fault = format!("{} accounts", report.accounts.len());
            return Err(TgtError::Report { id, fault });
        }
        // Its socket is made: it writes to no directory any more.
        let directory = self.base.directory(id).join(CONTROL_DIRECTORY);
        chown(&directory, Some(0), Some(control.uid))
            .and_then(|()| fs::set_permissions(&directory, Permissions::from_mode(0o750)))
            .map_err(|source| ProcessError::File { doing: "closing the control directory", id, source })?;
        control.initiator_allow(target.initiator.as_str()).await?;
        Ok(Served { run: run.clone(), control, boot: gate.floor, luns, sessions: BTreeMap::new() })
    }

    /// The tgtd of an instance: one that was found running is asked what it serves. Its sessions were told of, or
    /// nobody knows any more for which boot they are.
    async fn served(&self, instance: InstanceId) -> Option<Rc<Mutex<Served>>> {
        let id = ProcessId::Target(instance);
        let record = Record::load(&self.base.directory(id)).filter(|record| record.run.lives())?;
        let known = self.served.borrow().get(&instance).cloned();
        if let Some(known) = known
            && known.lock().await.run == record.run
        {
            return Some(known);
        }
        let ProcessSpec::Target(target) = &record.spec else { return None };
        let control = self.control(target);
        let report = Report::read(&control.show().await.ok()?);
        let luns = units_of(target, &report).ok()?;
        let user: BootUser = report.accounts.last()?.parse().ok()?;
        let served = Served { run: record.run, control, boot: user.boot, luns, sessions: report.sessions };
        let served = Rc::new(Mutex::new(served));
        self.served.borrow_mut().insert(instance, Rc::clone(&served));
        Some(served)
    }

    /// A script was sent: from now on its boot may log in, and none before it.
    async fn script_heed(&self, said: &Said) {
        let Said::Line { id: ProcessId::Netboot, line, .. } = said else { return };
        let Ok((from, _)) = events::read(ProcessId::Netboot, line) else { return };
        let EventSource::Netboot {
            said: NetbootEvent::Script { instance: Some(instance), boot: Some(boot), .. },
        } = from
        else {
            return;
        };
        if let Err(error) = self.account_renew(instance, boot).await {
            tracing::warn!(instance.id = %instance, error = chain(&error), "the boot's account was not made");
        }
    }

    async fn account_renew(&self, instance: InstanceId, boot: BootNumber) -> Result<(), TgtError> {
        let id = ProcessId::Target(instance);
        let served = self.served(instance).await.ok_or(TgtError::Silent(id))?;
        let mut served = served.lock().await;
        if boot <= served.boot {
            return Ok(());
        }
        // Whoever is there now came with the secret from before.
        self.sessions_tell(instance, &mut served).await?;
        let gate = gate_of(&self.base.directory(id)).ok_or(TgtError::Gate(id))?;
        let user = |boot| BootUser { instance, boot };
        let secret = boot_secret(&gate.boot_key, user(boot));
        let before = user(served.boot).to_string();
        let changed = async {
            served.control.account_remove_last(&before).await?;
            served.control.account_add(&user(boot).to_string(), secret.expose()).await
        };
        if let Err(error) = changed.await {
            // Which of the two it has is asked for when it is looked at next.
            self.served.borrow_mut().remove(&instance);
            return Err(error.into());
        }
        served.boot = boot;
        Ok(())
    }

    /// Says which sessions are new and which have ended.
    async fn sessions_tell(&self, instance: InstanceId, served: &mut Served) -> Result<(), TgtError> {
        let now = Report::read(&served.control.show().await?).sessions;
        // Not yet in its full-feature phase: tgtd does not say from where it comes.
        let now: BTreeMap<u64, Session> =
            now.into_iter().filter(|(_, session)| !session.address.is_empty()).collect();
        let peer = |session: &Session| session.address.parse().ok().map(|ip| SocketAddr::new(ip, 0));
        for (number, session) in &served.sessions {
            if let (false, Some(peer)) = (now.contains_key(number), peer(session)) {
                let reason = "disconnected".to_owned();
                self.say(instance, &served.run, &TargetEvent::Logout { peer, reason }).await;
            }
        }
        for (number, session) in &now {
            if let (false, Some(peer)) = (served.sessions.contains_key(number), peer(session)) {
                let initiator = session.initiator.clone();
                let boot = Some(served.boot);
                self.say(instance, &served.run, &TargetEvent::Login { initiator, peer, boot }).await;
            }
        }
        served.sessions = now;
        Ok(())
    }

    /// Says what our own target would print.
    async fn say(&self, instance: InstanceId, run: &Run, event: &TargetEvent) {
        let Ok(line) = serde_json::to_string(event) else { return };
        let id = ProcessId::Target(instance);
        let _ = self.news.send(Said::Line { id, run: run.name(), line }).await;
    }

    async fn target_ensure(&self, target: &TargetSpec, gate: BootGate) -> Result<(), TgtError> {
        let spec = ProcessSpec::Target(target.clone());
        let id = spec.id();
        validate::process(&spec, self.base.config.volume_dir.as_deref()).map_err(ProcessError::from)?;
        let _busy = self.base.occupy(id)?;
        if self.base.exists(&spec)? {
            return Ok(());
        }
        let order = |directory| self.order(target, directory);
        let run = self.base.launch(&spec, ProcessConfig::Gate(gate.clone()), order).await?;
        match self.set_up(target, &run, &gate).await {
            Ok(served) => {
                self.served.borrow_mut().insert(target.instance, Rc::new(Mutex::new(served)));
                let address = SocketAddr::new(target.address.into(), ISCSI_PORT);
                self.say(target.instance, &run, &TargetEvent::Listening { address }).await;
                Ok(())
            }
            Err(error) => {
                kill(&run);
                Err(error)
            }
        }
    }
}

/// Which numbers a target's volumes have.
fn units_of(target: &TargetSpec, report: &Report) -> Result<BTreeMap<u16, u16>, String> {
    let unit_of = |(position, lun): (usize, &crate::plan::spec::LunSpec)| {
        let path = volume_of_stock(position);
        let found = report.units.iter().find(|(_, unit)| unit.path == path);
        let (number, unit) = found.ok_or_else(|| format!("no volume for LUN {}", lun.lun))?;
        if !unit.online || unit.read_only != lun.read_only {
            let read_only = if unit.read_only { "read-only" } else { "writable" };
            return Err(format!("the volume of LUN {} online: {}, {read_only}", lun.lun, unit.online));
        }
        Ok((lun.lun, *number))
    };
    target.luns.iter().enumerate().map(unit_of).collect()
}

fn gate_of(directory: &Path) -> Option<BootGate> {
    serde_json::from_slice(&fs::read(directory.join(BOOT_GATE_FILE)).ok()?).ok()
}

impl Diskless for TgtDriver {
    type Error = TgtError;

    async fn network_ensure(&self, network: NetworkSpec) -> Result<(), TgtError> {
        Ok(self.0.base.network_ensure(network).await?)
    }

    async fn network_remove(&self) -> Result<(), TgtError> {
        Ok(self.0.base.network_take_down().await?)
    }

    async fn process_ensure(&self, spec: ProcessSpec, config: ProcessConfig) -> Result<(), TgtError> {
        let id = spec.id();
        match (spec, config) {
            (spec @ ProcessSpec::Netboot(_), config) => Ok(self.0.base.process_ensure(spec, config).await?),
            (ProcessSpec::Broker(_), _) => Err(TgtError::Remote(id)),
            (ProcessSpec::Target(target), _) if !target.remote.is_empty() => Err(TgtError::Remote(id)),
            (ProcessSpec::Target(target), ProcessConfig::Gate(gate)) => {
                self.0.target_ensure(&target, gate).await
            }
            (ProcessSpec::Target(_), _) => Err(TgtError::Gate(id)),
        }
    }

    async fn process_configure(&self, config: ProcessConfig) -> Result<(), TgtError> {
        Ok(self.0.base.process_configure(config).await?)
    }

    async fn process_remove(&self, id: ProcessId) -> Result<(), TgtError> {
        if let ProcessId::Target(instance) = id {
            self.0.served.borrow_mut().remove(&instance);
            // It does not end on SIGTERM while it has a target, and keeps nothing back: what it has answered is written.
            if let Some(record) = Record::load(&self.0.base.directory(id)) {
                kill(&record.run);
            }
        }
        Ok(self.0.base.process_remove(id).await?)
    }

    async fn observe(&self) -> Result<Found, TgtError> {
        let mut found = self.0.base.observe().await?;
        for (id, process) in &mut found.processes {
            let (ProcessId::Target(instance), Some(_)) = (id, &process.run) else { continue };
            match self.0.served(*instance).await {
                Some(served) => process.luns = served.lock().await.luns.clone().into_iter().collect(),
                // It does not say what it serves: as good as gone.
                None => process.run = None,
            }
        }
        Ok(found)
    }

    async fn tend(&self) {
        // Before the sessions, which a tgtd that was taken over can be slow to tell.
        self.0.base.tend().await;
        let all: Vec<_> =
            self.0.served.borrow().iter().map(|(id, served)| (*id, Rc::clone(served))).collect();
        let tell = |(instance, served): (InstanceId, Rc<Mutex<Served>>)| async move {
            let mut served = served.lock().await;
            if let Err(error) = self.0.sessions_tell(instance, &mut served).await {
                tracing::debug!(instance.id = %instance, error = chain(&error), "its sessions are not known");
            }
        };
        join_all(all.into_iter().map(tell)).await;
    }
}
