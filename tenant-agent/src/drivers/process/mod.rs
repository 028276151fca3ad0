//! Targets and boot services as sandboxed processes of this host: no engine needed.
//!
//! Each has a user id, a network namespace and a directory of its own: `run/<process>/` with its configuration, its
//! record, two FIFOs for what it prints and its log. It is the first process of a process id namespace, so nothing that
//! it started outlives it, and it sees no other. It becomes its program inside the barriers of `bmi_sandbox`. Starting order: directory → launcher in an empty namespace → veth moved in →
//! firewall → address, link, neighbour → into the bridge → go.
//!
//! Processes are not children that die with the helper: they run on while it is away, and are found again by their
//! records. Deliberately absent: restarting one that ended (the agent plans that).

pub(in crate::drivers) mod broker;
mod drops;
mod files;
mod guard;
pub mod launcher;
mod log;
mod output;
pub mod record;
mod start;
mod sweep;
pub(in crate::drivers) mod watch;
mod wiring;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bmi_agent_api::config::NETBOOT_FILE;
use bmi_types::{InstanceId, MacAddr, Segment, chain};

use super::firewall::{self, FirewallError, Place};
use super::links::{LinkError, Links};
use super::wires::{WireError, Wires};
use super::{Diskless, NewsSink, ProcessConfig};
use crate::config::Config;
use crate::helper::validate::{self, Refusal};
use crate::helper::verbs::{Found, FoundProcess};
use crate::plan::names::{ProcessId, alias, port, process_of_alias};
use crate::plan::spec::{NETBOOT_SLOT, NetworkSpec, ProcessSpec};
use drops::Drops;
use files::directory_remove;
use record::{Record, Run};
pub(in crate::drivers) use start::target_arguments;
use watch::Kept;
use wiring::install;

/// Where a target and the boot services listen with TCP.
pub(in crate::drivers) const ISCSI_PORT: u16 = 3260;
const HTTP_PORT: u16 = 80;

/// What could not be done to a process or the bridge.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The verb contradicts itself.
    #[error("refused")]
    Refused(#[from] Refusal),
    /// Another verb for the same process is not done yet.
    #[error("{0} is being worked on")]
    Busy(ProcessId),
    /// Its user id belongs to another process.
    #[error("slot {0} is in use by {1}")]
    SlotTaken(u32, ProcessId),
    /// It is there already.
    #[error("{0} is there already")]
    Exists(ProcessId),
    /// A file or directory.
    #[error("{doing} of {id}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// Of which process.
        id: ProcessId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The launcher.
    #[error("launching {id}")]
    Launch {
        /// Which.
        id: ProcessId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not end.
    #[error("{0} does not end")]
    Immortal(ProcessId),
    /// Two writers, or a reader of what another writes, would ruin it.
    #[error("the volume {0} is in use by {1}")]
    VolumeTaken(PathBuf, ProcessId),
    /// Links.
    #[error("wiring")]
    Link(#[from] LinkError),
    /// What leads to nodes.
    #[error(transparent)]
    Wire(Box<WireError>),
    /// Rules.
    #[error("fencing in")]
    Firewall(#[from] FirewallError),
    /// A namespace.
    #[error("entering the namespace")]
    Namespace(#[source] io::Error),
}

impl From<WireError> for ProcessError {
    fn from(error: WireError) -> Self {
        Self::Wire(Box::new(error))
    }
}

/// The driver. One per helper, on one thread.
pub struct ProcessDriver {
    pub(in crate::drivers) config: Config,
    pub(in crate::drivers) links: Links,
    news: NewsSink,
    kept: RefCell<BTreeMap<ProcessId, Kept>>,
    busy: RefCell<BTreeSet<ProcessId>>,
    /// What containers are being made of: from before their engine is asked until their records are written, or until they are
    /// certainly not there.
    claims: RefCell<BTreeMap<ProcessId, ProcessSpec>>,
    network: RefCell<Option<NetworkSpec>>,
    node_ports: RefCell<BTreeSet<String>>,
    /// Nodes' MACs that were seen in a second place and told of, and when that was last so.
    conflicts: RefCell<BTreeMap<(MacAddr, Place), Instant>>,
    /// Where nodes' MACs were when it was looked last.
    places: RefCell<BTreeSet<(MacAddr, Place)>>,
    drops: RefCell<Drops>,
    /// Whether it was looked at what an agent with another configuration left.
    segment_looked: Cell<bool>,
    /// Whether rules of brokers are in force, as far as is known.
    brokers_fenced: Cell<bool>,
    wires: Wires,
    /// One at a time puts rules in force, so that older ones never win.
    rules: tokio::sync::Mutex<()>,
}

/// Keeps a process for one verb.
pub(in crate::drivers) struct Busy<'a>(&'a ProcessDriver, ProcessId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.borrow_mut().remove(&self.1);
    }
}

impl ProcessDriver {
    /// Starts: makes the directories and looks after the processes that are already there.
    ///
    /// # Errors
    /// When there is no netlink or no directory.
    pub fn start(config: Config, news: NewsSink) -> Result<Self, ProcessError> {
        let driver = Self::open(config, news)?;
        driver.adopt(|id, run| driver.look_after(id, run, None));
        Ok(driver)
    }

    /// Starts without looking after anything.
    ///
    /// # Errors
    /// When there is no netlink.
    pub(in crate::drivers) fn open(config: Config, news: NewsSink) -> Result<Self, ProcessError> {
        Ok(Self {
            links: Links::open()?,
            config,
            news,
            kept: RefCell::default(),
            busy: RefCell::default(),
            claims: RefCell::default(),
            network: RefCell::default(),
            node_ports: RefCell::default(),
            conflicts: RefCell::default(),
            places: RefCell::default(),
            drops: RefCell::default(),
            segment_looked: Cell::default(),
            brokers_fenced: Cell::default(),
            wires: Wires::default(),
            rules: tokio::sync::Mutex::default(),
        })
    }

    /// Has every run looked after that is there already.
    pub(in crate::drivers) fn adopt(&self, look_after: impl Fn(ProcessId, Run) -> Result<(), ProcessError>) {
        for id in self.directories() {
            let Some(record) = Record::load(&self.directory(id)).filter(|record| record.run.lives()) else {
                continue;
            };
            match look_after(id, record.run) {
                Ok(()) => tracing::info!(process = %id, "found running"),
                Err(error) => {
                    tracing::warn!(process = %id, error = chain(&error), "found, but not to be watched");
                }
            }
        }
    }

    pub(in crate::drivers) fn directory(&self, id: ProcessId) -> PathBuf {
        self.config.run_dir().join(id.to_string())
    }

    /// Where an instance's broker has its socket.
    pub(in crate::drivers) fn sockets(&self, instance: InstanceId) -> PathBuf {
        self.config.sockets_dir().join(instance.to_string())
    }

    pub(in crate::drivers) fn uid(&self, slot: u32) -> u32 {
        self.config.uid_base.saturating_add(1).saturating_add(slot)
    }

    /// Every process of which there is a directory.
    pub(in crate::drivers) fn directories(&self) -> Vec<ProcessId> {
        let entries = fs::read_dir(self.config.run_dir()).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    pub(in crate::drivers) fn occupy(&self, id: ProcessId) -> Result<Busy<'_>, ProcessError> {
        if self.busy.borrow_mut().insert(id) { Ok(Busy(self, id)) } else { Err(ProcessError::Busy(id)) }
    }

    /// Whether a verb for it is not done yet.
    pub(in crate::drivers) fn is_busy(&self, id: ProcessId) -> bool {
        self.busy.borrow().contains(&id)
    }

    /// Whether it runs already as it should.
    ///
    /// # Errors
    /// When something else is there by its id.
    pub(in crate::drivers) fn exists(&self, spec: &ProcessSpec) -> Result<bool, ProcessError> {
        let (id, directory) = (spec.id(), self.directory(spec.id()));
        if !directory.exists() {
            return Ok(false);
        }
        let same = Record::load(&directory).is_some_and(|it| it.run.lives() && it.spec == *spec);
        if same { Ok(true) } else { Err(ProcessError::Exists(id)) }
    }

    /// Nobody else may have the slot, or a volume unless both only read it. A record stands until its process is gone; who is
    /// being started has a claim.
    pub(in crate::drivers) fn others_check(&self, spec: &ProcessSpec) -> Result<(), ProcessError> {
        let recorded = self.directories().into_iter();
        let recorded = recorded.filter_map(|id| Some((id, Record::load(&self.directory(id))?.spec)));
        let claims = self.claims.borrow();
        let claimed = claims.iter().map(|(id, theirs)| (*id, theirs.clone()));
        for (other, theirs) in recorded.chain(claimed).filter(|(other, _)| *other != spec.id()) {
            if theirs.slot() == spec.slot() {
                return Err(ProcessError::SlotTaken(spec.slot(), other));
            }
            if let Some(volume) = volume_shared(&theirs, spec) {
                return Err(ProcessError::VolumeTaken(volume.to_owned(), other));
            }
        }
        Ok(())
    }

    /// Takes the slot and the volumes of what has no record yet, for as long as others could not find it otherwise.
    pub(in crate::drivers) fn claim(&self, spec: &ProcessSpec) -> Result<(), ProcessError> {
        self.others_check(spec)?;
        self.claims.borrow_mut().insert(spec.id(), spec.clone());
        Ok(())
    }

    /// It has a record, or nothing of it is left.
    pub(in crate::drivers) fn claim_end(&self, id: ProcessId) {
        self.claims.borrow_mut().remove(&id);
    }

    /// Ends a process that is kept for this, and removes all that is left of it.
    pub(in crate::drivers) async fn remove_occupied(&self, id: ProcessId) -> Result<(), ProcessError> {
        let directory = self.directory(id);
        let record = Record::load(&directory);
        // A run without a record, when the helper was cut off in between, ends with its channel.
        let kept = self.kept.borrow().get(&id).map(|kept| kept.run.clone());
        for run in record.iter().map(|record| &record.run).chain(kept.as_ref()) {
            self.end(id, run).await?;
        }
        if let Some(record) = &record
            && !sweep::sweep(self.uid(record.spec.slot())).await
        {
            return Err(ProcessError::Immortal(id));
        }
        self.links.remove(&port(&self.config.bridge, id), &alias(id)).await?;
        if let Some(ProcessSpec::Target(target)) = record.map(|record| record.spec) {
            // Where the configuration has lost its volume directory, nothing can be reached there any more.
            for (volumes, lun) in
                self.config.volume_dir.iter().flat_map(|it| target.luns.iter().map(move |lun| (it, lun)))
            {
                let back = validate::below(Some(volumes), &lun.path)
                    .map_err(io::Error::other)
                    .and_then(|path| launcher::volume_take_back(volumes, &path, self.uid(target.slot)));
                back.map_err(|source| ProcessError::File { doing: "taking back a volume", id, source })?;
            }
        }
        // Before its own directory, so that this is repeated when it is cut off.
        self.sockets_remove(id)?;
        if let ProcessId::Broker(_) = id {
            self.brokers_fence(Some(id)).await?;
        }
        directory_remove(id, &directory)?;
        self.claim_end(id);
        Ok(())
    }

    /// Removes everything: for a host that no longer serves this network.
    ///
    /// # Errors
    /// The last fault; the rest was done all the same.
    pub async fn remove_all(&self) -> Result<(), ProcessError> {
        let mut result = Ok(());
        for id in self.directories() {
            result = self.process_remove(id).await.and(result);
        }
        self.network_take_down().await.and(result)
    }

    /// Makes the bridge and what leads to it, and puts the rules in force, by whoever has the rules.
    async fn network_put(&self, network: NetworkSpec) -> Result<(), ProcessError> {
        let device = self.wires.check(&self.links, &self.config, &network).await?;
        let index = self.links.bridge_ensure(&self.config.bridge, &network_alias(&self.config)).await?;
        let ready = self.wires.ready(&self.links, &self.config, &network, device.as_ref(), index);
        let joining = ready.await?;
        self.bridge_rules(&network, &joining).await?;
        for port in &joining {
            self.links.port_ensure(port, index).await?;
        }
        if !joining.is_empty() {
            self.bridge_rules(&network, &BTreeSet::new()).await?;
        }
        *self.network.borrow_mut() = Some(network);
        Ok(())
    }

    /// Removes the bridge, when it is ours, and its rules.
    pub(in crate::drivers) async fn network_take_down(&self) -> Result<(), ProcessError> {
        let _rules = self.rules.lock().await;
        *self.network.borrow_mut() = None;
        // Before its rules: nothing is in the bridge without them.
        self.wires.remove(&self.links, &self.config).await?;
        let result = install(firewall::bridge_remove(&self.config.bridge)).await;
        match self.links.remove(&self.config.bridge, &network_alias(&self.config)).await {
            Ok(()) | Err(LinkError::Foreign(_)) => result,
            Err(error) => Err(error.into()),
        }
    }
}

/// A volume of both of which at least one writes. Links lead nowhere in a volume directory, and a file has one name, so
/// two names are two volumes.
fn volume_shared<'a>(one: &ProcessSpec, other: &'a ProcessSpec) -> Option<&'a Path> {
    let shared = other
        .luns()
        .iter()
        .find(|lun| one.luns().iter().any(|own| own.path == lun.path && !(own.read_only && lun.read_only)));
    shared.map(|lun| lun.path.as_path())
}

/// The alias of a bridge that this agent made.
fn network_alias(config: &Config) -> String {
    format!("bmi:{}", config.network)
}

impl Diskless for ProcessDriver {
    type Error = ProcessError;

    async fn network_remove(&self) -> Result<(), ProcessError> {
        self.network_take_down().await
    }

    async fn network_ensure(&self, network: NetworkSpec) -> Result<(), ProcessError> {
        validate::network(&network)?;
        let _rules = self.rules.lock().await;
        self.network_put(network).await
    }

    async fn process_ensure(&self, spec: ProcessSpec, config: ProcessConfig) -> Result<(), ProcessError> {
        validate::process(&spec, self.config.volume_dir.as_deref())?;
        let _busy = self.occupy(spec.id())?;
        if self.exists(&spec)? {
            return Ok(());
        }
        let order = |directory| self.order(&spec, directory);
        self.launch(&spec, config, order).await.map(|_| ())
    }

    async fn process_configure(&self, config: ProcessConfig) -> Result<(), ProcessError> {
        let (id, slot) = match &config {
            ProcessConfig::Broker => return Ok(()),
            ProcessConfig::Netboot(_) => (ProcessId::Netboot, Some(NETBOOT_SLOT)),
            ProcessConfig::Gate(gate) => {
                let id = ProcessId::Target(gate.instance);
                (id, Record::load(&self.directory(id)).map(|record| record.spec.slot()))
            }
        };
        let absent = || ProcessError::File {
            doing: "configuring",
            id,
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        self.config_write(id, self.uid(slot.ok_or_else(absent)?), &config)
    }

    async fn process_remove(&self, id: ProcessId) -> Result<(), ProcessError> {
        let _busy = self.occupy(id)?;
        self.remove_occupied(id).await
    }

    async fn observe(&self) -> Result<Found, ProcessError> {
        let links = self.links.all().await?;
        let bridge = links.get(self.config.bridge.as_str()).map(|link| link.index);
        let wired = |id| {
            let link = links.get(port(&self.config.bridge, id).as_str());
            matches!(id, ProcessId::Broker(_))
                || bridge.is_some() && link.is_some_and(|link| link.controller == bridge)
        };
        let mut processes = BTreeMap::new();
        for id in self.directories() {
            if self.busy.borrow().contains(&id) {
                continue;
            }
            let record = Record::load(&self.directory(id));
            let run = record.as_ref().map(|record| &record.run).filter(|run| run.lives()).map(Run::name);
            let spec = record.map(|record| record.spec);
            processes.insert(id, FoundProcess { spec, run, wired: wired(id), luns: Vec::new() });
        }
        // A port of ours without a directory: its process is none that is known, so it is to be removed.
        for (name, link) in &links {
            let Some(id) = link.alias.as_deref().and_then(process_of_alias) else { continue };
            let ours = name.as_str() == port(&self.config.bridge, id).as_str();
            if ours && !processes.contains_key(&id) && !self.busy.borrow().contains(&id) {
                let nothing = FoundProcess { spec: None, run: None, wired: false, luns: Vec::new() };
                processes.insert(id, nothing);
            }
        }
        let netboot = fs::read(self.directory(ProcessId::Netboot).join(NETBOOT_FILE)).ok();
        let network = self.network.borrow().clone();
        let ports = self.wires.places(&self.config, network.as_ref(), &links, bridge);
        let is_whole = |network: &NetworkSpec| {
            bridge.is_some() && !self.wires.amiss(&self.config, network, &links, bridge)
        };
        Ok(Found {
            dropped: self.drops.borrow().sums(),
            pending: Vec::new(),
            unseen: None,
            ports,
            network: network.filter(is_whole),
            processes,
            netboot: netboot.and_then(|text| serde_json::from_slice(&text).ok()),
        })
    }

    async fn tend(&self) {
        self.drops_look().await;
        let _rules = self.rules.lock().await;
        self.guard().await;
        let network = self.network.borrow().clone();
        if let Some(network) = network {
            let changed = self.node_ports().await.is_ok_and(|ports| ports != *self.node_ports.borrow());
            if changed {
                match self.bridge_rules(&network, &BTreeSet::new()).await {
                    Ok(()) => tracing::info!("the bridge has other ports; its rules were renewed"),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "the bridge's rules could not be renewed");
                    }
                }
            }
            if !network.targets.is_empty() {
                self.conflicts_tell().await;
            }
            if let Segment::Vxlan(_) = network.segment {
                let places = self.places.borrow().clone();
                self.wires.peers_follow(&self.links, &self.config, &network, &places).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::firewall::testing;

    #[tokio::test]
    async fn what_is_being_started_has_its_slot_and_its_volumes_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "network = \"lab\"\ncontrol_plane = \"unix:/agent.sock\"\nbridge = \"bmi0\"\nloaders = \"/usr/lib/ipxe\"\nstate_dir = \"{0}\"\nvolume_dir = \"{0}\"\n\
             uid_base = 310000\n",
            directory.path().display()
        );
        let (news, _) = tokio::sync::mpsc::channel(1);
        let driver = ProcessDriver::open(toml::from_str(&text).unwrap(), news).unwrap();
        let first = testing::target(1);
        let claim =
            |target: &crate::plan::spec::TargetSpec| driver.claim(&ProcessSpec::Target(target.clone()));
        claim(&first).unwrap();
        claim(&first).unwrap();
        let mut slot = testing::target(2);
        slot.slot = first.slot;
        let mut volume = testing::target(3);
        volume.luns.clone_from(&first.luns);
        assert!(matches!(claim(&slot), Err(ProcessError::SlotTaken(..))));
        assert!(matches!(claim(&volume), Err(ProcessError::VolumeTaken(..))));
        claim(&testing::target(4)).unwrap();
        driver.claim_end(ProcessSpec::Target(first).id());
        claim(&slot).unwrap();
        claim(&volume).unwrap();
    }

    #[test]
    fn a_volume_is_shared_only_by_readers() {
        let target = |read_only| {
            let mut target = testing::target(1);
            target.luns.truncate(1);
            target.luns.iter_mut().for_each(|lun| lun.read_only = read_only);
            ProcessSpec::Target(target)
        };
        assert!(volume_shared(&target(false), &target(false)).is_some());
        assert!(volume_shared(&target(true), &target(false)).is_some());
        assert!(volume_shared(&target(false), &target(true)).is_some());
        assert!(volume_shared(&target(true), &target(true)).is_none());
    }
}
