//! What agents report: the state of what they keep, and what happened.
//!
//! An agent speaks for its own network only, and while it has it. Nothing it says can do more than set the state of a target that is on
//! that network, or add to a timeline.

use std::collections::{BTreeMap, BTreeSet};

use bmi_agent_api::event::{
    AgentEvent, BridgeEvent, BrokerEvent, EventSource, NetbootEvent, SessionStatistics, TargetEvent,
};
use bmi_agent_api::status::{Dropped, PortPlace, PortStatus, ServiceStatus, StatusSent};
use bmi_api::{Code, InstanceState, TargetState, Traffic};
use bmi_db::agent::Report;
use bmi_db::enrolled_agent::{self, Record};
use bmi_db::{SystemTx, authority};
use bmi_drivers::isolation::{PortReport, PortState};
use bmi_types::{ByteSize, InstanceId, MacAddr, NetworkId, Timestamp};

use super::authority::{settled, told};
use super::enrolment::{key_ahead_note, previous_for};
use super::network_timeline::{agent_event, host_event};
use super::speaker::{Peer, Speaker};
use super::{App, boot_watch, network_timeline};
use crate::error::AppError;

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 500;
/// The longest version that is kept, in characters.
const VERSION_MAX: usize = 64;

fn target_state(status: &ServiceStatus) -> (TargetState, Option<String>) {
    match status {
        ServiceStatus::Absent => (TargetState::Absent, None),
        ServiceStatus::Starting => (TargetState::Starting, None),
        ServiceStatus::Listening => (TargetState::Listening, None),
        ServiceStatus::Failed { reason } => {
            (TargetState::Failed, Some(reason.chars().take(REASON_MAX).collect()))
        }
    }
}

/// The most ports of one agent's host: as many as nodes could be cabled to one.
const PORTS_MAX: usize = 256;

fn port_report(port: &PortStatus) -> PortReport {
    let state = match &port.place {
        PortPlace::Attached => PortState::Attached,
        PortPlace::Quarantined => PortState::Quarantined,
        PortPlace::Failed { reason } => PortState::Failed(reason.clone()),
    };
    PortReport { interface: port.interface.clone(), state }
}

/// The most firewalls of one agent's host: a target and a broker for each of a thousand instances, the boot services and
/// the bridge.
const FIREWALLS_MAX: usize = 2050;

/// What firewalls dropped, to be kept. Names of series are not for an agent to choose.
fn dropped_text(dropped: &[Dropped]) -> Result<String, AppError> {
    let is_known = |one: &&Dropped| {
        let instance = one.by.strip_prefix("broker-").unwrap_or(&one.by);
        matches!(one.by.as_str(), "bridge" | "netboot") || instance.parse::<InstanceId>().is_ok()
    };
    let kept: Vec<&Dropped> = dropped.iter().filter(is_known).take(FIREWALLS_MAX).collect();
    serde_json::to_string(&kept).map_err(|error| AppError::Defect(format!("dropped packets: {error}")))
}

/// What an agent is told that reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Whether it has the network.
    pub serves: bool,
    /// What the authorities are known by that are trusted now.
    pub authorities_mark: String,
}

/// Takes a status report. Of an agent that stands by, only that it is there.
pub async fn status(app: &App, speaker: &Speaker, name: &str, sent: StatusSent) -> Result<Noted, AppError> {
    let noted = status_take(app, speaker, name, sent).await;
    if let (Err(error), Speaker::Enrolled(peer)) = (&noted, speaker)
        && error.is(Code::AgentRefused)
    {
        key_ahead_note(app, peer.clone()).await?;
    }
    noted
}

async fn status_take(app: &App, speaker: &Speaker, name: &str, sent: StatusSent) -> Result<Noted, AppError> {
    let (speaker, name) = (speaker.clone(), name.to_owned());
    let generation = i64::try_from(sent.report.generation_observed).unwrap_or(i64::MAX);
    let ports: Vec<PortReport> = sent.report.ports.iter().take(PORTS_MAX).map(port_report).collect();
    let previous_for = app.enrolling.as_ref().map(previous_for).unwrap_or_default();
    let (noted, network) = app
        .db
        .system_write(move |tx| {
            let now = Timestamp::now();
            let entered = speaker.enter(tx, &name, now)?;
            let report = sent.report;
            let version: String = report.version.chars().take(VERSION_MAX).collect();
            if let (Some(agent), Speaker::Enrolled(peer)) = (&entered.agent, &speaker) {
                let ahead = sent.sent_at.map(|at| (at.micros() - now.micros()) / 1000);
                clock_note(tx, agent, ahead)?;
                enrolled_agent::seen(tx, agent.id, &version, ahead, now)?;
                key_used(tx, agent, peer, now.plus(previous_for))?;
            }
            let noted = Noted {
                serves: entered.serves(),
                authorities_mark: told(&settled(authority::list(tx)?, now)).authorities_mark,
            };
            if !noted.serves {
                return Ok((noted, None));
            }
            let network = entered.network.id;
            let (netboot, netboot_reason) = target_state(&report.netboot);
            let own = Report {
                version,
                generation_observed: generation,
                netboot_state: netboot.as_str(),
                netboot_reason,
                dropped: dropped_text(&report.dropped)?,
            };
            bmi_db::agent::report(tx, network, &own, now)?;
            let known: Vec<InstanceId> = report.instances.iter().map(|instance| instance.id).collect();
            bmi_db::instance::targets_absent_except(tx, network, &known)?;
            for instance in &report.instances {
                let (state, reason) = target_state(&instance.target);
                bmi_db::instance::target_report(tx, network, instance.id, state, reason.as_deref())?;
            }
            Ok::<_, AppError>((noted, Some(network)))
        })
        .await?;
    if let Some(network) = network.filter(|_| !ports.is_empty()) {
        let taken = app.isolation.reported(network, generation, &ports).await;
        taken.map_err(|error| AppError::refused(Code::Unavailable, bmi_types::chain(&error)))?;
    }
    app.wake.reported.ring();
    Ok(noted)
}

/// A clock that is off by more than this is told, in milliseconds: certificates and timelines depend on it.
const CLOCK_OFF_MS: i64 = 30_000;

/// Tells once that an agent's clock is off, and once that it is right again.
fn clock_note(tx: &mut SystemTx<'_>, agent: &Record, ahead_ms: Option<i64>) -> Result<(), AppError> {
    let is_off = |ahead: Option<i64>| ahead.filter(|ahead| ahead.abs() > CLOCK_OFF_MS);
    let said = match (is_off(agent.clock_ahead_ms), is_off(ahead_ms)) {
        (None, Some(ahead)) => {
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            format!("the host's clock is {} s {way} the control plane's", ahead.abs() / 1000)
        }
        (Some(_), None) if ahead_ms.is_some() => "the host's clock is right again".to_owned(),
        _ => return Ok(()),
    };
    agent_event(tx, agent.network, agent.id, "agent.clock", [("reason", said)])
}

/// An agent that speaks with its new key has it: the one before counts until then, and no longer.
fn key_used(tx: &mut SystemTx<'_>, agent: &Record, peer: &Peer, until: Timestamp) -> Result<(), AppError> {
    let renewed = agent.previous_key_sha256.is_some() && agent.previous_until.is_none();
    if renewed && agent.key_sha256 == peer.key_sha256 {
        // What was just noted of it stays.
        if let Some(agent) = enrolled_agent::find(tx, agent.id)? {
            enrolled_agent::update(tx, &Record { previous_until: Some(until), ..agent })?;
        }
    }
    Ok(())
}

/// Takes a batch of events, in which `unknown` more cannot be read here: those of an agent of a later release.
pub async fn events(
    app: &App,
    speaker: &Speaker,
    name: &str,
    events: Vec<AgentEvent>,
    unknown: usize,
) -> Result<(), AppError> {
    let (speaker, name, limits) = (speaker.clone(), name.to_owned(), app.boot_limits);
    app.db
        .system_write(move |tx| {
            let entered = speaker.enter(tx, &name, Timestamp::now())?;
            if !entered.serves() {
                let detail = "another agent has the network; this one stands by";
                return Err(AppError::refused(Code::WrongState, detail));
            }
            let network = entered.network.id;
            if unknown > 0 {
                tracing::warn!(
                    network.name = name,
                    unknown,
                    "events are not known here; is the agent of a later release?"
                );
            }
            let mut booting = BTreeSet::new();
            for event in events {
                booting.extend(boot_of(&event.from));
                match event.from {
                    EventSource::Target { instance, said } => {
                        target_event(tx, network, instance, event.at, said)?;
                    }
                    EventSource::Broker { instance, said } => {
                        broker_event(tx, network, instance, event.at, said)?;
                    }
                    EventSource::Netboot { said } => netboot_event(tx, network, event.at, said)?,
                    EventSource::Bridge { said } => bridge_event(tx, network, event.at, said)?,
                    EventSource::Agent { said } => host_event(tx, network, event.at, &said)?,
                }
            }
            // After all of them: what came in one batch belongs together.
            for instance in booting {
                if bmi_db::instance::by_id(tx, instance)?.is_some_and(|it| it.instance.network == network) {
                    boot_watch::look_at_arrival(tx, instance, Timestamp::now(), &limits)?;
                }
            }
            Ok::<_, AppError>(())
        })
        .await
}

/// The instance whose boot an event changes.
const fn boot_of(from: &EventSource) -> Option<InstanceId> {
    match from {
        EventSource::Target { instance, said: TargetEvent::Login { .. } } => Some(*instance),
        EventSource::Netboot { said: NetbootEvent::Script { instance, .. } } => *instance,
        _ => None,
    }
}

/// A stage's details, built up.
#[derive(Default)]
struct Detail(BTreeMap<String, String>);

impl Detail {
    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A node that uses its disk runs.
fn running(tx: &mut SystemTx<'_>, found: &bmi_db::instance::Record) -> Result<(), AppError> {
    let from = [InstanceState::Ready];
    let project = tx.project(found.instance.project);
    bmi_db::instance::state_change(tx, project, found.instance.id, &from, InstanceState::Running)?;
    Ok(())
}

fn target_event(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    instance: InstanceId,
    at: Timestamp,
    said: TargetEvent,
) -> Result<(), AppError> {
    let Some(found) = bmi_db::instance::by_id(tx, instance)? else { return Ok(()) };
    if found.instance.network != network {
        return Ok(());
    }
    let traffic = found.instance.traffic;
    let detail = Detail::default();
    let (stage, detail) = match said {
        TargetEvent::Traffic { read_bytes, written_bytes } => {
            let traffic = Traffic { read: ByteSize::new(read_bytes), written: ByteSize::new(written_bytes) };
            bmi_db::instance::traffic(tx, network, instance, traffic)?;
            return Ok(());
        }
        TargetEvent::Statistics { peer: _, statistics } => {
            // Its login may have been lost.
            running(tx, &found)?;
            bmi_db::session::statistics(tx, instance, &document(&statistics)?)?;
            return Ok(());
        }
        TargetEvent::Listening { address } => ("target", detail.with("address", address)),
        TargetEvent::Login { initiator, peer, boot } => {
            running(tx, &found)?;
            if let Some(boot) = boot {
                bmi_db::instance::boot_floor_raise(tx, network, instance, boot)?;
            }
            bmi_db::session::begin(tx, instance, at, &document(&SessionStatistics::default())?)?;
            let detail = detail.with("initiator", initiator).with("peer", peer).with_some("boot", boot);
            ("login", detail)
        }
        TargetEvent::LoginRefused { peer, reason } => {
            ("login.refused", detail.with("peer", peer).with("reason", reason))
        }
        TargetEvent::FirstRead => ("read.first", detail),
        TargetEvent::FirstWrite => ("write.first", detail),
        TargetEvent::Logout { peer, reason } => ("logout", detail.with("peer", peer).with("reason", reason)),
        TargetEvent::SessionConflict { peer, holder } => {
            ("session.conflict", detail.with("peer", peer).with("holder", holder))
        }
        TargetEvent::SpaceExhausted => ("space.exhausted", detail),
    };
    let detail =
        detail.with("read_bytes", traffic.read.bytes()).with("written_bytes", traffic.written.bytes());
    Ok(bmi_db::stage::insert(tx, instance, at, stage, &detail.0)?)
}

fn broker_event(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    instance: InstanceId,
    at: Timestamp,
    said: BrokerEvent,
) -> Result<(), AppError> {
    let Some(found) = bmi_db::instance::by_id(tx, instance)? else { return Ok(()) };
    if found.instance.network != network {
        return Ok(());
    }
    let (stage, detail) = match said {
        BrokerEvent::Listening => ("broker", Detail::default()),
        BrokerEvent::Restarted { after } => ("broker.restarted", Detail::default().with("after", after)),
    };
    Ok(bmi_db::stage::insert(tx, instance, at, stage, &detail.0)?)
}

fn document(statistics: &SessionStatistics) -> Result<String, AppError> {
    serde_json::to_string(statistics).map_err(|error| AppError::Defect(format!("statistics: {error}")))
}

fn netboot_event(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    at: Timestamp,
    said: NetbootEvent,
) -> Result<(), AppError> {
    let detail = Detail::default();
    let (mac, stage, detail): (MacAddr, &str, Detail) = match said {
        NetbootEvent::Dhcp { mac, answer, address, architecture, file }
            if answer == "ack" || answer == "proxy" =>
        {
            let detail = detail
                .with("mac", mac)
                .with_some("address", address)
                .with_some("architecture", architecture)
                .with_some("file", file);
            (mac, "dhcp", detail)
        }
        NetbootEvent::Loader { mac: Some(mac), file, bytes, protocol, .. } => {
            let detail =
                detail.with("mac", mac).with("file", file).with("bytes", bytes).with("protocol", protocol);
            (mac, "loader", detail)
        }
        NetbootEvent::Script { mac, address, instance: Some(instance), boot } => {
            if let Some(address) = address {
                bmi_db::instance::address_seen(tx, network, instance, address)?;
            }
            (mac, "script", detail.with("mac", mac).with_some("address", address).with_some("boot", boot))
        }
        NetbootEvent::Script { mac, address, instance: None, .. } => {
            (mac, "script.wait", detail.with("mac", mac).with_some("address", address))
        }
        NetbootEvent::Refused { address, mac: Some(mac), reason } => {
            (mac, "script.refused", detail.with("mac", mac).with("address", address).with("reason", reason))
        }
        NetbootEvent::Dhcp { .. }
        | NetbootEvent::Loader { .. }
        | NetbootEvent::Listening { .. }
        | NetbootEvent::Refused { .. } => return Ok(()),
    };
    stage_of_mac(tx, network, mac, at, stage, &detail)
}

fn bridge_event(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    at: Timestamp,
    said: BridgeEvent,
) -> Result<(), AppError> {
    let BridgeEvent::MacConflict { mac, place, second } = said;
    let told = [("mac", mac.to_string()), ("place", place.clone()), ("second", second.clone())];
    network_timeline::add(tx, network, at, "mac.conflict", told)?;
    let detail = Detail::default().with("mac", mac).with("place", place).with("second", second);
    stage_of_mac(tx, network, mac, at, "mac.conflict", &detail)
}

/// Adds a stage to the instance whose node has a NIC, when there is one.
fn stage_of_mac(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    mac: MacAddr,
    at: Timestamp,
    stage: &str,
    detail: &Detail,
) -> Result<(), AppError> {
    match bmi_db::instance::of_mac(tx, network, &mac.to_string())? {
        Some(instance) => Ok(bmi_db::stage::insert(tx, instance, at, stage, &detail.0)?),
        None => Ok(()),
    }
}
