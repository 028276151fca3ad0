//! The host of a simulated agent, as far as it says anything: boot services and, for each instance, a target and the node that
//! boots from it.
//!
//! A node's firmware is a BIOS with a PXE ROM, which is given a loader first. What is said after that, and in which order, is what
//! `tests/tests/boot.rs` sees of a real boot: iPXE logs in twice, then the initramfs, then the system. Only the times are pressed
//! together.
//!
//! Pure: the time is a parameter. Deliberately absent: what is said of a node that runs and reads and writes, and of its end: a
//! target that is taken away says nothing.
//!
//! Invariant: it outlives the runs of its agent, as processes do; nothing is said a second time because the agent was started again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bmi_agent_api::desired::{DesiredInstance, DesiredState};
use bmi_agent_api::event::{
    AgentEvent, EventSource, LATENCY_BOUNDS, NetbootEvent, Requests, SessionStatistics, TargetEvent,
};
use bmi_types::{BootNumber, InstanceId, Timestamp};

/// From when a target listens until its node boots. One that waits asks every five seconds. The instance is ready by
/// then, as a rule; if not, it runs from the system's login on.
const FIRMWARE_AFTER: Duration = Duration::from_secs(3);
/// From when iPXE has the disk until the system has it: half a minute of a real node.
const SYSTEM_AFTER: Duration = Duration::from_secs(2);

/// The port of every target.
const PORT: u16 = 3260;
/// The first of a node's ports: each of its sessions has the next one.
const NODE_PORT: u16 = 49_152;
/// What a PXE ROM of a BIOS says it is (RFC 4578 section 2.1), and what it is given.
const BIOS: u16 = 0;
const LOADER: &str = "undionly.kpxe";
const LOADER_BYTES: u64 = 74_213;
/// What a timeline says that iPXE is given.
const SCRIPT: &str = "boot script";
/// Bytes read until the system has the disk, and read and written until it runs.
const LOADING: [u64; 2] = [20 << 20, 0];
const RUNNING: [u64; 2] = [200 << 20, 8 << 20];

/// What is said next of an instance. Each is entered from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its target listens. Enters: it is desired for the first time.
    Target,
    /// Its node is given a loader and a script, and iPXE boots from the disk. Enters also: the node is switched on again.
    Firmware,
    /// Its system has taken the disk over. Leaves: to nothing more.
    System,
}

/// An instance with its node.
#[derive(Debug)]
struct Node {
    instance: DesiredInstance,
    /// The number of its last boot.
    boot: BootNumber,
    /// What is said next, and when; nothing of one that runs.
    next: Option<(Timestamp, Part)>,
}

impl Node {
    fn new(instance: &DesiredInstance, now: Timestamp) -> Self {
        Self { instance: instance.clone(), boot: instance.boot_floor, next: Some((now, Part::Target)) }
    }

    /// What is said in one part; and decides when the next one is due.
    fn go_on(&mut self, part: Part, now: Timestamp) -> Vec<EventSource> {
        match part {
            Part::Target => {
                self.next = Some((now.plus(FIRMWARE_AFTER), Part::Firmware));
                let address = SocketAddr::from((self.instance.target.address, PORT));
                self.target([TargetEvent::Listening { address }])
            }
            Part::Firmware => {
                self.next = Some((now.plus(SYSTEM_AFTER), Part::System));
                // As boot services number boots.
                let seconds = u64::try_from(now.micros() / 1_000_000).unwrap();
                self.boot = BootNumber(seconds.max(self.boot.0 + 1));
                self.firmware()
            }
            Part::System => {
                self.next = None;
                self.system()
            }
        }
    }

    /// From the first packet until iPXE has the disk. It looks at the disk once before it boots from it.
    fn firmware(&self) -> Vec<EventSource> {
        let (mac, address) = (self.instance.macs[0], self.address());
        let dhcp = |answer: &str, file: &str| NetbootEvent::Dhcp {
            mac,
            answer: answer.to_owned(),
            address: Some(address),
            architecture: Some(BIOS),
            file: Some(file.to_owned()),
        };
        let loader = NetbootEvent::Loader {
            address,
            mac: Some(mac),
            file: LOADER.to_owned(),
            bytes: LOADER_BYTES,
            protocol: "tftp".to_owned(),
        };
        let script = NetbootEvent::Script {
            mac,
            address: Some(address),
            instance: Some(self.instance.id),
            boot: Some(self.boot),
        };
        let netboot = [
            dhcp("offer", LOADER),
            dhcp("ack", LOADER),
            loader,
            dhcp("offer", SCRIPT),
            dhcp("ack", SCRIPT),
            script,
        ];
        let [statistics, logout] = self.session_end(0, "disconnected");
        let target = self.target([
            self.login(0),
            TargetEvent::FirstRead,
            statistics,
            logout,
            self.login(1),
            TargetEvent::FirstRead,
            traffic(LOADING),
        ]);
        netboot.into_iter().map(|said| EventSource::Netboot { said }).chain(target).collect()
    }

    /// From the initramfs until the system runs.
    fn system(&self) -> Vec<EventSource> {
        let [of_ipxe, fenced] = self.session_end(1, "fenced");
        let [of_initramfs, disconnected] = self.session_end(2, "disconnected");
        self.target([
            of_ipxe,
            fenced,
            self.login(2),
            TargetEvent::FirstRead,
            of_initramfs,
            disconnected,
            self.login(3),
            TargetEvent::FirstRead,
            TargetEvent::FirstWrite,
            traffic(RUNNING),
            self.statistics(3),
        ])
    }

    /// DHCP is BMI's here.
    fn address(&self) -> Ipv4Addr {
        self.instance.node_address.expect("every node has an address")
    }

    fn peer(&self, session: u16) -> SocketAddr {
        SocketAddr::from((self.address(), NODE_PORT + session))
    }

    fn login(&self, session: u16) -> TargetEvent {
        let initiator = self.instance.initiator.to_string();
        TargetEvent::Login { initiator, peer: self.peer(session), boot: Some(self.boot) }
    }

    fn statistics(&self, session: u16) -> TargetEvent {
        let statistics =
            SessionStatistics { read: requests(400), write: requests(40), ..SessionStatistics::default() };
        TargetEvent::Statistics { peer: self.peer(session), statistics: Box::new(statistics) }
    }

    /// What is said when a session ends.
    fn session_end(&self, session: u16, reason: &str) -> [TargetEvent; 2] {
        let logout = TargetEvent::Logout { peer: self.peer(session), reason: reason.to_owned() };
        [self.statistics(session), logout]
    }

    fn target(&self, said: impl IntoIterator<Item = TargetEvent>) -> Vec<EventSource> {
        let instance = self.instance.id;
        said.into_iter().map(|said| EventSource::Target { instance, said }).collect()
    }
}

fn traffic([read_bytes, written_bytes]: [u64; 2]) -> TargetEvent {
    TargetEvent::Traffic { read_bytes, written_bytes }
}

/// So many requests of 4 KiB, each of 300 µs.
fn requests(count: u64) -> Requests {
    let mut latency = [0; LATENCY_BOUNDS.len() + 1];
    latency[LATENCY_BOUNDS.partition_point(|bound| *bound < 300)] = count;
    Requests { failed: 0, bytes: count * 4096, micros: count * 300, latency }
}

/// All of a host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Where the boot services listen, once they do.
    netboot: Option<Ipv4Addr>,
    nodes: BTreeMap<InstanceId, Node>,
    /// What was said and not passed on yet.
    said: Vec<EventSource>,
}

impl Host {
    /// Makes a desired state so: what is new is there at once, and what is not in it is gone.
    pub(crate) fn follow(&mut self, desired: &DesiredState, now: Timestamp) {
        let address = desired.network.plan.netboot_address;
        if self.netboot.replace(address).is_none() {
            self.said.push(EventSource::Netboot { said: NetbootEvent::Listening { address } });
        }
        self.nodes.retain(|id, _| desired.instances.iter().any(|instance| instance.id == *id));
        for instance in &desired.instances {
            self.nodes.entry(instance.id).or_insert_with(|| Node::new(instance, now));
        }
    }

    /// Switches every node off and on.
    pub(crate) fn boot(&mut self, now: Timestamp) {
        for node in self.nodes.values_mut() {
            node.next = Some((now, Part::Firmware));
        }
    }

    /// What is said by now.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<AgentEvent> {
        let mut said = std::mem::take(&mut self.said);
        for node in self.nodes.values_mut() {
            if let Some((_, part)) = node.next.filter(|(at, _)| *at <= now) {
                said.extend(node.go_on(part, now));
            }
        }
        said.into_iter().map(|from| AgentEvent { at: now, from }).collect()
    }

    /// When more is said.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.nodes.values().filter_map(|node| node.next.map(|(at, _)| at)).min()
    }

    /// Whether every node runs, and all that was said has been passed on.
    pub(crate) fn is_quiet(&self) -> bool {
        self.said.is_empty() && self.next().is_none()
    }
}
