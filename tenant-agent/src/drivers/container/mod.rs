//! Targets and boot services as containers of an engine on this host.
//!
//! Each has an image with one program, a user id and a directory of its own, as a sandboxed process has; brokers, which
//! hear no tenant, are sandboxed processes here too. Starting order: directory → container with an empty network → is it
//! confined, does it see the volumes that were meant → firewall and veth, as for a process. The program listens before it
//! has its address, and nobody can reach it before its rules are in force.
//!
//! Containers outlive the helper and are found again by their records. A container with our label that no record
//! knows is removed. Deliberately absent: the engine's own networks, volumes, restarts and registries.

pub mod check;
mod confine;
pub mod engine;
mod limits;
mod printed;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bmi_agent_api::config::NETBOOT_FILE;
use bmi_sandbox::{Profile, ProfileError, oci};
use bmi_types::chain;
use tokio::task::spawn_local;

use super::process::launcher::{self, LaunchError};
use super::process::record::{Record, Run};
use super::process::{
    ProcessDriver, ProcessError, broker, target_arguments, watch::Printed, watch::SIGSYS_TOLD,
};
use super::{Diskless, NewsSink, ProcessConfig};
use crate::config::{Config, ContainerSection, LOADERS_MOUNT};
use crate::helper::validate::{self, Refusal};
use crate::helper::verbs::{Found, FoundProcess};
use crate::plan::names::{InterfaceName, ProcessId};
use crate::plan::spec::{LunSpec, NetworkSpec, ProcessSpec, TargetSpec};
use confine::{AGENT_LABEL, CONFIG_MOUNT, Container, PROCESS_LABEL, Shown};
pub use engine::{Engine, EngineError};

/// Where a container sees its volumes and its broker's socket.
const VOLUMES_MOUNT: &str = "/volumes";
const BROKER_MOUNT: &str = "/broker";

/// File name in a process's directory: its system calls, for an engine that wants a file.
const FILTER_FILE: &str = "seccomp.json";

/// How long a container may take to become its program after the engine says that it runs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// What is printed and was not passed on yet, in bytes.
const PIPE: usize = 64 * 1024;

/// How long the engine may take to say which containers there are. The agent asks every second, and gives up on its root half
/// after a minute.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the last lines of a container that ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What the runtime itself does between the filter and the program.
const RUNTIME_PROFILE: &str = "container-runtime";

/// What could not be done to a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// As for a process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is nothing about an engine in the configuration.
    #[error("the configuration has no [container] section")]
    NoSection,
    /// A volume.
    #[error("giving it its volumes")]
    Volume(#[from] LaunchError),
    /// Which system calls.
    #[error("choosing its system calls")]
    Profile(#[from] ProfileError),
    /// It ended before it was its program.
    #[error("{0} ended at once")]
    Ended(ProcessId),
    /// The engine did not do what it was asked for.
    #[error("the engine started {id}, but {fault}")]
    Unconfined {
        /// Which.
        id: ProcessId,
        /// What is wrong with it.
        fault: String,
    },
}

impl From<Refusal> for ContainerError {
    fn from(refusal: Refusal) -> Self {
        Self::Process(refusal.into())
    }
}

/// The driver. One per helper, on one thread.
pub struct ContainerDriver {
    base: ProcessDriver,
    engine: Rc<Engine>,
    section: ContainerSection,
    /// Whether it was said that the engine does not answer.
    told: Cell<bool>,
}

/// A volume as it was opened, and where the container sees it.
struct Volume {
    file: File,
    at: String,
}

impl ContainerDriver {
    /// Starts: looks after the containers that are already there. The engine may be away.
    ///
    /// # Errors
    /// When there is no netlink or no configuration.
    pub fn start(config: Config, news: NewsSink) -> Result<Self, ContainerError> {
        let section = config.container.clone().ok_or(ContainerError::NoSection)?;
        let engine = Rc::new(Engine::new(section.engine.clone()));
        let driver =
            Self { base: ProcessDriver::open(config, news)?, engine, section, told: Cell::default() };
        driver.base.adopt(|id, run| match id {
            ProcessId::Broker(_) => driver.base.look_after(id, run, None),
            _ => driver.look_after(id, run),
        });
        Ok(driver)
    }

    /// Whose containers ours are: two agents may use one engine.
    fn agent(&self) -> String {
        format!("{}/{}", self.base.config.network, self.base.config.bridge)
    }

    fn name(&self, id: ProcessId) -> String {
        name_of(&self.base.config.bridge, id)
    }

    fn look_after(&self, id: ProcessId, run: Run) -> Result<(), ProcessError> {
        let (lines_to, lines) = tokio::io::duplex(PIPE);
        let (errors_to, errors) = tokio::io::duplex(PIPE);
        let (finished_to, finished) = tokio::sync::oneshot::channel();
        let pipes = printed::Pipes { lines: lines_to, errors: errors_to };
        let (engine, name) = (Rc::clone(&self.engine), self.name(id));
        let follow =
            printed::follow(Rc::clone(&engine), name.clone(), run.clone(), self.base.directory(id), pipes);
        let feeder = spawn_local(async move {
            follow.await;
            let _ = finished_to.send(());
        });
        let ending = async move {
            let _ = tokio::time::timeout(LAST_LINES, finished).await;
            engine.ending(&name).await.map_or_else(|| "ended".to_owned(), told)
        };
        let printed = Printed { lines, errors, feeder: Some(feeder), ending: Some(Box::pin(ending)) };
        self.base.keep(id, run, None, printed)
    }

    fn container(
        &self,
        spec: &ProcessSpec,
        directory: &Path,
        volumes: &[Volume],
    ) -> Result<Container, ContainerError> {
        let id = spec.id();
        let show = |from: &Path, at: &str, write| Shown { from: from.to_owned(), at: at.to_owned(), write };
        let mut shown = vec![show(directory, CONFIG_MOUNT, false)];
        let (image, program, arguments, profile, file_size) = match spec {
            ProcessSpec::Target(target) => {
                let luns = || target.luns.iter().zip(volumes);
                let paths = self.volume_paths(target)?;
                let both = luns().zip(&paths);
                shown.extend(both.map(|((lun, volume), path)| show(path, &volume.at, !lun.read_only)));
                let mut arguments = target_arguments(target);
                for (lun, volume) in luns() {
                    let read_only = if lun.read_only { ",ro" } else { "" };
                    arguments
                        .extend(["--lun".to_owned(), format!("{}=file:{}{read_only}", lun.lun, volume.at)]);
                }
                if !target.remote.is_empty() {
                    shown.push(show(&self.base.sockets(target.instance), BROKER_MOUNT, false));
                }
                for lun in &target.remote {
                    let lun = broker::lun_argument(lun.lun, Path::new(BROKER_MOUNT), lun.read_only);
                    arguments.extend(["--lun".to_owned(), lun]);
                }
                let profile = if target.remote.is_empty() { "bmi-target" } else { "bmi-target-broker" };
                let written =
                    luns().filter(|(lun, _)| !lun.read_only).map(|(_, volume)| length(volume)).max();
                (&self.section.target_image, "/bmi-target", arguments, profile, written.unwrap_or_default())
            }
            ProcessSpec::Netboot(_) | ProcessSpec::Broker(_) => {
                shown.push(show(&self.base.config.loaders, LOADERS_MOUNT, false));
                let arguments = ["--config", NETBOOT_FILE].map(str::to_owned).to_vec();
                (&self.section.netboot_image, "/bmi-netboot", arguments, "bmi-netboot", 0)
            }
        };
        let profile = Profile::of(profile)?.and(Profile::of(RUNTIME_PROFILE)?);
        Ok(Container {
            image: image.clone(),
            command: [program.to_owned()].into_iter().chain(arguments).collect(),
            uid: self.base.uid(spec.slot()),
            shown,
            file_size,
            seccomp: oci::render(&profile, std::env::consts::ARCH),
            agent: self.agent(),
            process: id.to_string(),
        })
    }

    /// Where a target's volumes are on the host.
    fn volume_paths(&self, target: &TargetSpec) -> Result<Vec<PathBuf>, ContainerError> {
        let volumes = self.base.config.volume_dir.as_deref();
        let paths = target.luns.iter().map(|lun| {
            let below = validate::below(volumes, &lun.path)?;
            Ok(volumes.unwrap_or(Path::new("/")).join(below))
        });
        paths.collect()
    }

    /// Opens a target's volumes as a launcher does: beneath the volume directory, through no link, given to its user.
    fn volumes_open(&self, spec: &ProcessSpec) -> Result<Vec<Volume>, ContainerError> {
        let directory = self.base.config.volume_dir.as_deref();
        let uid = self.base.uid(spec.slot());
        let open = |lun: &LunSpec| {
            let path = validate::below(directory, &lun.path)?;
            let lun = launcher::OrderLun { lun: lun.lun, path, read_only: lun.read_only };
            let file = launcher::volume_open(directory, &lun, uid)?;
            Ok(Volume { file, at: format!("{VOLUMES_MOUNT}/{}", lun.lun) })
        };
        spec.luns().iter().map(open).collect()
    }

    /// Makes and starts a container, and says which process it is: one that is certainly confined.
    async fn started(
        &self,
        spec: &ProcessSpec,
        container: &Container,
        volumes: &[Volume],
    ) -> Result<Run, ContainerError> {
        let (id, name) = (spec.id(), self.name(spec.id()));
        let image = container.command.first().map_or("", |program| program.trim_start_matches('/'));
        let ensure = || self.engine.image_ensure(&container.image, self.section.image_dir.as_deref(), image);
        ensure().await?;
        if !self.engine.start(&name, container.body()).await? {
            // Somebody removed the image since it was looked for.
            self.engine.image_forget(&container.image).await;
            ensure().await?;
            if !self.engine.start(&name, container.body()).await? {
                return Err(EngineError::NoImage { digest: container.image.clone() }.into());
            }
        }
        let pid = self.engine.process(&name).await?.ok_or(ContainerError::Ended(id))?;
        let run = Run::of(pid).ok_or(ContainerError::Ended(id))?;
        // The number may have been given to somebody else in between.
        if self.engine.process(&name).await? != Some(pid) || !run.lives() {
            return Err(ContainerError::Ended(id));
        }
        let program = container.command.first().cloned().unwrap_or_default();
        let limit = Instant::now() + PROGRAM_TIMEOUT;
        while fs::read_link(format!("/proc/{pid}/exe")).ok().as_deref() != Some(Path::new(&program)) {
            if !run.lives() || Instant::now() > limit {
                return Err(ContainerError::Ended(id));
            }
            tokio::time::sleep(LOOK).await;
        }
        let unconfined = |fault| ContainerError::Unconfined { id, fault };
        confine::confined(pid, container.uid).map_err(unconfined)?;
        for volume in volumes {
            if !is_seen(pid, volume).unwrap_or_default() {
                return Err(unconfined(format!("{} in it is not the volume that was meant", volume.at)));
            }
        }
        Ok(run)
    }

    /// Makes a container and writes down that it runs.
    async fn make(&self, spec: &ProcessSpec, config: &ProcessConfig) -> Result<Run, ContainerError> {
        let id = spec.id();
        let directory = self.base.directory_make(spec, config)?;
        let volumes = self.volumes_open(spec)?;
        let mut container = self.container(spec, &directory, &volumes)?;
        if self.engine.version().await?.reads_filters_from_files() {
            let (path, file) = (directory.join(FILTER_FILE), |source| ProcessError::File {
                doing: "writing the filter",
                id,
                source,
            });
            fs::write(&path, &container.seccomp).map_err(file)?;
            container.seccomp = path.to_string_lossy().into_owned();
        }
        let run = self.started(spec, &container, &volumes).await?;
        let file = |source| ProcessError::File { doing: "writing the record", id, source };
        Record { spec: spec.clone(), run: run.clone() }.save(&directory).map_err(file)?;
        Ok(run)
    }

    async fn start_contained(&self, spec: ProcessSpec, config: ProcessConfig) -> Result<(), ContainerError> {
        let id = spec.id();
        let _busy = self.base.occupy(id)?;
        if self.base.exists(&spec)? {
            return Ok(());
        }
        self.base.claim(&spec)?;
        let made = self.make(&spec, &config).await;
        // One that was made only half may run: what it has is nobody else's before it is certainly gone.
        let nothing = !self.base.directory(id).exists();
        if made.is_ok() || nothing || self.engine.remove(&self.name(id)).await.is_ok() {
            self.base.claim_end(id);
        }
        let run = made?;
        self.look_after(id, run.clone())?;
        if let Some((address, network)) = spec.place() {
            self.base.wire(&spec, &run, address, network.cidr.prefix_len()).await?;
        }
        Ok(())
    }

    /// Containers with our label: those that are nobody's are removed, the others told of.
    async fn listed(&self) -> Result<Vec<ProcessId>, EngineError> {
        let mut ours = Vec::new();
        for listed in self.engine.list(AGENT_LABEL, &self.agent()).await? {
            let id = listed.labels.get(PROCESS_LABEL).and_then(|id| id.parse().ok());
            match id.filter(|id| listed.name == self.name(*id)) {
                Some(id) => ours.push(id),
                None => {
                    tracing::warn!(container = listed.name, "it has our label and is none of ours; removed");
                    self.engine.remove(&listed.id).await?;
                }
            }
        }
        Ok(ours)
    }

    /// Removes everything: for a host that no longer serves this network.
    ///
    /// # Errors
    /// The last fault; the rest was done all the same.
    pub async fn remove_all(&self) -> Result<(), ContainerError> {
        let mut result = Ok(());
        let found = self.observe().await?;
        for id in found.processes.into_keys() {
            result = self.process_remove(id).await.and(result);
        }
        self.base.network_take_down().await.map_err(ContainerError::from).and(result)
    }
}

/// What a process's container is called on the host of a bridge.
#[must_use]
pub fn name_of(bridge: &InterfaceName, id: ProcessId) -> String {
    format!("bmi-{bridge}-{id}")
}

/// How a container ended, for people.
fn told(ending: engine::Ending) -> String {
    match ending {
        engine::Ending { memory: true, .. } => "ended: it wanted more memory than it may have".to_owned(),
        // 128 and the number of SIGSYS.
        engine::Ending { code: 159, .. } => SIGSYS_TOLD.to_owned(),
        engine::Ending { code, .. } => format!("exit status: {code}"),
    }
}

fn length(volume: &Volume) -> u64 {
    volume.file.metadata().map(|it| it.len()).unwrap_or_default()
}

/// Whether a process sees at a volume's place the very file that was opened.
fn is_seen(pid: i32, volume: &Volume) -> io::Result<bool> {
    let meant = volume.file.metadata()?;
    let seen = fs::symlink_metadata(format!("/proc/{pid}/root{}", volume.at))?;
    Ok((meant.dev(), meant.ino()) == (seen.dev(), seen.ino()))
}

impl Diskless for ContainerDriver {
    type Error = ContainerError;

    async fn network_ensure(&self, network: NetworkSpec) -> Result<(), ContainerError> {
        Ok(self.base.network_ensure(network).await?)
    }

    async fn network_remove(&self) -> Result<(), ContainerError> {
        Ok(self.base.network_take_down().await?)
    }

    async fn process_ensure(&self, spec: ProcessSpec, config: ProcessConfig) -> Result<(), ContainerError> {
        if let ProcessSpec::Broker(_) = spec {
            return Ok(self.base.process_ensure(spec, config).await?);
        }
        validate::process(&spec, self.base.config.volume_dir.as_deref())?;
        self.start_contained(spec, config).await
    }

    async fn process_configure(&self, config: ProcessConfig) -> Result<(), ContainerError> {
        Ok(self.base.process_configure(config).await?)
    }

    async fn process_remove(&self, id: ProcessId) -> Result<(), ContainerError> {
        if let ProcessId::Broker(_) = id {
            return Ok(self.base.process_remove(id).await?);
        }
        let _busy = self.base.occupy(id)?;
        // By its process first: it flushes on SIGTERM, and that needs no engine.
        if let Some(record) = Record::load(&self.base.directory(id)) {
            self.base.end(id, &record.run).await?;
        }
        self.engine.remove(&self.name(id)).await?;
        Ok(self.base.remove_occupied(id).await?)
    }

    async fn observe(&self) -> Result<Found, ContainerError> {
        let mut found = self.base.observe().await?;
        // An engine that takes a question and does not answer holds up nothing but this.
        let listed = tokio::time::timeout(LIST_TIMEOUT, self.listed()).await;
        match listed.unwrap_or_else(|_| Err(self.engine.silent())) {
            Ok(listed) => {
                self.told.set(false);
                let mut more: BTreeMap<ProcessId, FoundProcess> = BTreeMap::new();
                for id in listed.into_iter().filter(|id| !self.base.is_busy(*id)) {
                    let nothing = FoundProcess { spec: None, run: None, wired: false, luns: Vec::new() };
                    more.insert(id, nothing);
                }
                // What has a directory is known better.
                more.append(&mut found.processes);
                found.processes = more;
            }
            // Those that run are served all the same.
            Err(error) => {
                let reason = chain(&error);
                if !self.told.replace(true) {
                    tracing::warn!(reason, "containers cannot be listed");
                }
                found.unseen = Some(reason);
            }
        }
        Ok(found)
    }

    async fn tend(&self) {
        self.base.tend().await;
    }
}
