//! The unprivileged half: one loop that observes, plans, executes and reports.
//!
//! Everything that changes the agent's memory happens here, between two waits: a new desired state, a line a process
//! printed, a process that ended, a timer. Each leads to the same reconciliation, so a lost or repeated one does no harm.
//!
//! Invariants: slots are in the ledger before a process has one; a floor is in the ledger before it is in a gate.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bmi_agent_api::config::BootGate;
use bmi_agent_api::event::{
    About, AgentEvent, BridgeEvent, BrokerEvent, EventSource, HostEvent, TargetEvent,
};
use bmi_agent_api::status::{Dropped, PortStatus, StatusReport};
use bmi_types::{BootNumber, InstanceId, Timestamp, chain};
use tokio::sync::{mpsc, watch};

use crate::config::{Config, Driver};
use crate::events::{self, Times};
use crate::execute::execute;
use crate::faults::Faults;
use crate::helper::client::{Helper, HelperError, News};
use crate::helper::verbs::{Found, Verb};
use crate::ledger::Ledger;
use crate::plan::names::ProcessId;
use crate::plan::spec::{Kept, Wanted};
use crate::plan::{Action, Health, Observed, ObservedProcess, plan};
use crate::sync::Told;
use report::WithoutNews;

/// How often the world is looked at without any news.
const LOOK: Duration = Duration::from_secs(10);

/// How long a process may take to say `listening`; it is milliseconds when all is well.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a broker, which waits for a lock whose owner is dead: Ceph gives that up after 30 s.
const BROKER_LISTEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Pauses before a failed process is started again: doubled each time, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// A process that listened this long after a failure is forgiven.
const FORGIVEN: Duration = Duration::from_secs(60);

/// Plans in a row before waiting for news: stop, start, entry is the longest real chain.
const ROUNDS_MAX: usize = 4;

/// Lines taken in before the world is looked at.
const LINES_AT_ONCE: usize = 256;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The other half has gone. Whoever supervises the agent starts both again.
    #[error("the root helper ended")]
    HelperGone,
    /// Memory that cannot be kept: going on could give one user id to two targets.
    #[error("keeping the ledger")]
    Ledger(#[from] crate::ledger::LedgerError),
}

/// The number the control plane gives the boot volume, and which it has where a driver reports no other.
const BOOT_LUN: u16 = 0;

/// What is told of a bridge that somebody removed.
const NETWORK_GONE: &str = "the network's bridge or its rules are gone from the host; they are made again";

/// The longest reason in an event, in characters.
const REASON_LONGEST: usize = 1024;

const fn listen_timeout(id: ProcessId) -> Duration {
    match id {
        ProcessId::Broker(_) => BROKER_LISTEN_TIMEOUT,
        ProcessId::Netboot | ProcessId::Target(_) => LISTEN_TIMEOUT,
    }
}

/// What news were about: most are events for the timeline only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing that changes what there is to do.
    Events,
    /// A process came to listen, or ended.
    Change,
}

/// What a login did to the lowest boot number that may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floor {
    Kept,
    Raised,
}

/// The last failure of a process.
#[derive(Debug, Clone)]
struct Failure {
    reason: String,
    count: u32,
    until: Instant,
}

/// The agent's memory.
pub struct Agent {
    config: Config,
    directory: PathBuf,
    ledger: Ledger,
    /// The ledger as it is on the disk.
    saved: Option<Ledger>,
    helper: Helper,
    failures: BTreeMap<ProcessId, Failure>,
    /// Why the bridge or its segment is not as wanted: then nothing is started, and it is tried at each look.
    network_fault: Option<String>,
    /// What is told of that, and of a host that cannot be observed.
    network_faults: Faults,
    host_faults: Faults,
    /// Since when a run has been starting.
    starting: BTreeMap<ProcessId, (String, Instant)>,
    observed: Observed,
    ports: Vec<PortStatus>,
    dropped: Vec<Dropped>,
    generation_observed: u64,
    /// Whether another agent has the network.
    replaced: bool,
    /// Whether what it ran as the network's agent is certainly gone.
    down: bool,
    events: mpsc::Sender<AgentEvent>,
    events_dropped: u64,
    times: Times,
    status: watch::Sender<Option<StatusReport>>,
}

impl Agent {
    /// An agent with what the ledger remembers.
    #[must_use]
    pub fn new(
        config: Config,
        directory: &Path,
        ledger: Ledger,
        helper: Helper,
        events: mpsc::Sender<AgentEvent>,
        status: watch::Sender<Option<StatusReport>>,
    ) -> Self {
        Self {
            config,
            directory: directory.to_owned(),
            ledger,
            saved: None,
            helper,
            failures: BTreeMap::new(),
            network_fault: None,
            network_faults: Faults::new(About::Network, events.clone()),
            host_faults: Faults::new(About::Host, events.clone()),
            starting: BTreeMap::new(),
            observed: Observed::default(),
            ports: Vec::new(),
            dropped: Vec::new(),
            generation_observed: 0,
            replaced: false,
            down: false,
            events,
            events_dropped: 0,
            times: Times::default(),
            status,
        }
    }

    /// Works until the helper ends.
    ///
    /// # Errors
    /// Always: it ends only then.
    pub async fn run(
        mut self,
        mut told: watch::Receiver<Option<Told>>,
        mut news: mpsc::Receiver<News>,
    ) -> Result<(), AgentError> {
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if due <= now {
                self.reconcile(&mut news).await?;
                due = Instant::now() + self.next_look(Instant::now());
            }
            let pause = due.saturating_duration_since(Instant::now());
            let mut lines = Vec::new();
            tokio::select! {
                changed = told.changed() => {
                    if changed.is_err() {
                        // Its task never ends by itself; without it the timer still does the work.
                        tokio::time::sleep(pause).await;
                    }
                    if let Some(told) = told.borrow_and_update().clone() {
                        self.heed(told);
                    }
                    due = now;
                }
                count = news.recv_many(&mut lines, LINES_AT_ONCE) => {
                    if count == 0 {
                        return Err(AgentError::HelperGone);
                    }
                    if self.hear(lines).await? == Heard::Change {
                        due = now;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn heed(&mut self, told: Told) {
        self.replaced = matches!(told, Told::Replaced);
        self.down &= self.replaced;
        self.ledger.desired = match told {
            Told::Desired(desired) => Some(*desired),
            Told::Replaced => None,
        };
    }

    /// Takes everything down. What cannot be is tried again at the next look.
    async fn stand_down(&mut self) -> Result<(), AgentError> {
        // An agent that starts again serves nothing either.
        self.ledger_save()?;
        let is_settled = self.observed.pending.is_empty();
        if self.down && is_settled && self.observed.processes.is_empty() && self.observed.network.is_none() {
            return Ok(());
        }
        if !self.observed.processes.is_empty() || self.observed.network.is_some() {
            tracing::warn!("another agent has the network: what this one runs is taken down");
        }
        let stops = self.observed.processes.keys().copied().map(Action::ProcessStop).collect();
        let faults = execute(&self.helper, stops).await;
        for fault in &faults {
            tracing::warn!(
                process = fault.process.map(String::from),
                reason = chain(&fault.error),
                "an action failed"
            );
        }
        if faults.is_empty() {
            let removed = self.helper.order(Verb::NetworkRemove).await;
            if let Err(error) = &removed {
                tracing::warn!(reason = chain(error), "the network could not be removed");
            }
            self.down = removed.is_ok() && is_settled;
            self.ledger.kept = Kept::default();
        }
        self.ledger_save()
    }

    /// When something is due, if nothing happens.
    fn next_look(&self, now: Instant) -> Duration {
        let retries = self.failures.values().map(|failure| failure.until);
        let deadlines = self.starting.iter().map(|(id, (_, since))| *since + listen_timeout(*id));
        let due = retries.chain(deadlines).filter(|at| *at > now).map(|at| at - now).min();
        due.unwrap_or(LOOK).min(LOOK) + Duration::from_millis(10)
    }

    async fn hear(&mut self, news: Vec<News>) -> Result<Heard, AgentError> {
        let mut heard = Heard::Events;
        let mut floors: BTreeMap<InstanceId, BootNumber> = BTreeMap::new();
        for item in news {
            match item {
                News::Exited(id, run, how) => {
                    heard = Heard::Change;
                    tracing::warn!(process = %id, run, how, "a process ended by itself");
                    // A start that failed has said why already; that its launcher then ended adds nothing.
                    if self.failures.get(&id).is_none_or(|failure| failure.until <= Instant::now()) {
                        self.fail(id, format!("it ended by itself: {how}"));
                    }
                }
                News::MacConflict(mac, place, second) => {
                    let from = EventSource::Bridge { said: BridgeEvent::MacConflict { mac, place, second } };
                    self.pass_on(AgentEvent { at: Timestamp::now(), from });
                }
                News::RulesRestored(table) => {
                    let from = EventSource::Agent { said: HostEvent::RulesRestored { table } };
                    self.pass_on(AgentEvent { at: Timestamp::now(), from });
                }
                News::Line(id, run, line) => match self.times.read(id, &line, Timestamp::now()) {
                    Err(error) => tracing::debug!(process = %id, %error, "a line is no event"),
                    Ok(event) => {
                        if events::is_listening(&event.from) {
                            self.ledger.kept.listening.insert(id, run);
                            heard = Heard::Change;
                            self.restart_tell(id);
                        }
                        if let EventSource::Target {
                            instance,
                            said: TargetEvent::Login { boot: Some(boot), .. },
                        } = &event.from
                        {
                            floors.insert(*instance, *boot);
                        }
                        self.pass_on(event);
                    }
                },
            }
        }
        for (instance, boot) in floors {
            if self.floor_raise(instance, boot).await? == Floor::Raised {
                // The boot services are told too: the token of a boot that has logged in is spent.
                heard = Heard::Change;
            }
        }
        Ok(heard)
    }

    /// A broker that listens after it had failed was started again: a node may have noticed.
    fn restart_tell(&mut self, id: ProcessId) {
        if let ProcessId::Broker(instance) = id
            && let Some(failure) = self.failures.get(&id)
        {
            let said =
                BrokerEvent::Restarted { after: failure.reason.chars().take(REASON_LONGEST).collect() };
            self.pass_on(AgentEvent { at: Timestamp::now(), from: EventSource::Broker { instance, said } });
        }
    }

    fn pass_on(&mut self, event: AgentEvent) {
        if !has_room(&self.events, &event.from) {
            return;
        }
        if self.events.try_send(event).is_err() {
            self.events_dropped += 1;
            if self.events_dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.events_dropped,
                    "events were dropped: the control plane is away"
                );
            }
        }
    }

    /// Remembers that boot number `boot` has logged in, and tells the next run of the target.
    async fn floor_raise(&mut self, instance: InstanceId, boot: BootNumber) -> Result<Floor, AgentError> {
        let floor = self.ledger.kept.floors.entry(instance).or_default();
        if boot <= *floor {
            return Ok(Floor::Kept);
        }
        *floor = boot;
        self.ledger_save()?;
        let wanted = self.ledger.desired.iter().flat_map(|desired| &desired.instances);
        let Some(key) = wanted.filter(|wanted| wanted.id == instance).map(|it| it.boot_key.clone()).next()
        else {
            return Ok(Floor::Raised);
        };
        let gate = BootGate { instance, boot_key: key, floor: boot };
        if let Err(error) = self.helper.order(Verb::GateWrite { gate }).await {
            tracing::warn!(instance.id = %instance, error = chain(&error), "the gate's floor was not written");
        }
        Ok(Floor::Raised)
    }

    /// Writes the ledger when it differs from what is on the disk.
    fn ledger_save(&mut self) -> Result<(), AgentError> {
        if self.saved.as_ref() != Some(&self.ledger) {
            self.ledger.save(&self.directory)?;
            self.saved = Some(self.ledger.clone());
        }
        Ok(())
    }

    fn fail(&mut self, id: ProcessId, reason: String) {
        let count = self.failures.get(&id).map_or(0, |failure| failure.count);
        let pause = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(count)).min(RETRY_LONGEST);
        let until = Instant::now() + pause;
        self.failures.insert(id, Failure { reason, count: count.saturating_add(1), until });
    }

    /// Observes, plans and executes until there is nothing to do, and reports.
    async fn reconcile(&mut self, news: &mut mpsc::Receiver<News>) -> Result<(), AgentError> {
        for _ in 0..ROUNDS_MAX {
            let found = match self.helper.observe().await {
                Ok(found) => found,
                Err(HelperError::Gone) => return Err(AgentError::HelperGone),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(reason, "the world could not be observed");
                    self.host_faults.note(Some(&reason));
                    break;
                }
            };
            self.host_faults.note(found.unseen.as_deref());
            // A round may take long. Who has said meanwhile that it listens is not late.
            let mut said = Vec::new();
            while let Ok(item) = news.try_recv() {
                said.push(item);
            }
            self.hear(said).await?;
            let had_network = self.observed.network.is_some();
            self.judge(found, Instant::now());
            if had_network && self.observed.network.is_none() && self.ledger.desired.is_some() {
                tracing::warn!("{NETWORK_GONE}");
                self.network_faults.note(Some(NETWORK_GONE));
            }
            let Some(mut desired) = self.ledger.desired.clone() else {
                if self.replaced {
                    self.stand_down().await?;
                }
                break;
            };
            if self.config.driver == Driver::Tgt {
                // Without a way to Ceph nothing is started that would need one.
                desired.instances.iter_mut().for_each(|instance| instance.ceph = None);
            }
            let present = self.observed.processes.keys().chain(&self.observed.pending).copied();
            let present: BTreeSet<ProcessId> = present.collect();
            self.ledger.kept.settle(&desired, &present);
            self.ledger_save()?;
            let wanted = Wanted::from_desired(&desired, &self.ledger.kept, self.config.loaders_seen());
            self.times.retain(&present);
            self.failures.retain(|id, _| wanted.processes.contains_key(id) || present.contains(id));
            let actions = plan(&wanted, &self.observed);
            let mut done = actions.is_empty();
            // What has ended is told before it is started again, which may take a while. What is new is told when all is
            // done: a target that listens is of use once the boot services know of it.
            if !done {
                let last = self.status.borrow().clone();
                self.publish(self.report().without_news(last.as_ref()));
            }
            self.network_fault = None;
            for fault in execute(&self.helper, actions).await {
                let reason = chain(&fault.error);
                let process = fault.process.map(String::from).unwrap_or_default();
                tracing::warn!(process, reason, "an action failed");
                match fault.process {
                    Some(id) => self.fail(id, reason),
                    None => {
                        self.network_fault = Some(reason);
                        done = true;
                    }
                }
            }
            self.network_faults.note(self.network_fault.as_deref());
            self.generation_observed = desired.generation;
            if done {
                break;
            }
        }
        self.publish(self.report());
        Ok(())
    }

    /// What was found, and how healthy it is.
    fn judge(&mut self, found: Found, now: Instant) {
        let mut starting = BTreeMap::new();
        let mut processes = BTreeMap::new();
        let mut late = Vec::new();
        for (id, process) in found.processes {
            let said = self.ledger.kept.listening.get(&id);
            let health = match &process.run {
                Some(run) if process.wired && said == Some(run) => Health::Listening,
                Some(run) if process.wired => {
                    let known = self.starting.get(&id).filter(|(known, _)| known == run);
                    let since = known.map_or(now, |(_, since)| *since);
                    if now.saturating_duration_since(since) > listen_timeout(id) {
                        late.push(id);
                        Health::Broken
                    } else {
                        starting.insert(id, (run.clone(), since));
                        Health::Starting
                    }
                }
                _ => Health::Broken,
            };
            let lun =
                process.luns.iter().find(|(wanted, _)| *wanted == BOOT_LUN).map_or(BOOT_LUN, |(_, lun)| *lun);
            processes.insert(id, ObservedProcess { spec: process.spec, health, lun });
        }
        self.starting = starting;
        self.ports = found.ports;
        let whose = |id: Option<ProcessId>| match id {
            None => "bridge".to_owned(),
            Some(ProcessId::Netboot) => "netboot".to_owned(),
            Some(ProcessId::Target(instance)) => instance.to_string(),
            Some(broker @ ProcessId::Broker(_)) => broker.to_string(),
        };
        let dropped = found.dropped.into_iter();
        self.dropped = dropped.map(|(id, packets)| Dropped { by: whose(id), packets }).collect();
        for id in late {
            self.fail(id, format!("it did not say `listening` within {} s", listen_timeout(id).as_secs()));
        }
        let listening = |id: &ProcessId| {
            processes.get(id).is_some_and(|process: &ObservedProcess| process.health == Health::Listening)
        };
        self.failures.retain(|id, failure| !(listening(id) && now > failure.until + FORGIVEN));
        let held = self.failures.iter().filter(|(_, failure)| failure.until > now).map(|(id, _)| *id);
        self.observed = Observed {
            network: found.network,
            held: held.collect(),
            pending: found.pending.into_iter().collect(),
            netboot: found.netboot,
            processes,
        };
    }
}

/// Whether an event may wait with the others. While the control plane is away, totals would soon have the place of what happens once;
/// the next total says the same and more.
fn has_room(events: &mpsc::Sender<AgentEvent>, from: &EventSource) -> bool {
    let is_total = matches!(
        from,
        EventSource::Target { said: TargetEvent::Traffic { .. } | TargetEvent::Statistics { .. }, .. }
    );
    !is_total || events.capacity() >= events.max_capacity() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_leave_room_for_what_happens_once() {
        let (events, _waiting) = mpsc::channel(4);
        let instance = InstanceId::generate();
        let total = TargetEvent::Traffic { read_bytes: 1, written_bytes: 1 };
        let total = EventSource::Target { instance, said: total };
        let once = EventSource::Target { instance, said: TargetEvent::FirstRead };
        let mut taken = 0;
        while has_room(&events, &total) {
            events.try_send(AgentEvent { at: Timestamp::now(), from: total.clone() }).unwrap();
            taken += 1;
        }
        assert_eq!(taken, 3);
        assert!(has_room(&events, &once));
        events.try_send(AgentEvent { at: Timestamp::now(), from: once }).unwrap();
    }
}
