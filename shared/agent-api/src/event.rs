//! What happened: one JSON line per event from a process to its agent, and batches from the agent to the control
//! plane (`POST /agent/v1/networks/{name}/events`).
//!
//! A process may print only what [`TargetEvent`] or [`NetbootEvent`] can hold. The agent knows which process a line
//! came from; nothing in a line is believed to say so.

use std::net::{Ipv4Addr, SocketAddr};

use bmi_types::{BootNumber, InstanceId, MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

/// The longest line a process may print, in bytes, the newline included. Longer lines are dropped and counted.
pub const LINE_MAX: usize = 8 * 1024;

/// The most events in one batch to the control plane.
pub const BATCH_MAX: usize = 256;

/// Upper bounds of the classes that latencies are counted in, in microseconds.
pub const LATENCY_BOUNDS: [u64; 12] =
    [10, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Those that failed.
    pub failed: u64,
    /// Bytes that were read or written.
    pub bytes: u64,
    /// Microseconds they took, all together.
    pub micros: u64,
    /// How many took at most each of the [`LATENCY_BOUNDS`], and more than the one before it; last, those that took
    /// longer than all.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
}

/// A line of a process: an event, and when it happened. Whoever reads lines may see them late, and those of two processes in
/// another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<E> {
    /// When the process printed it, by its own word. A process of an earlier release does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What happened.
    #[serde(flatten)]
    pub said: E,
}

impl<E: Serialize> Line<E> {
    /// An event of now, as it is printed: the newline is part of it.
    ///
    /// # Errors
    /// When the event cannot be written as JSON, or the line would be longer than [`LINE_MAX`].
    pub fn of_now(said: E) -> Result<String, serde_json::Error> {
        let mut line = serde_json::to_string(&Self { at: Some(Timestamp::now()), said })?;
        line.push('\n');
        if line.len() > LINE_MAX {
            return Err(serde::ser::Error::custom("the line is too long"));
        }
        Ok(line)
    }
}

/// What a session asked of its disk. A request takes from when all of it has arrived until its answer is ready to be
/// sent; a READ of more than 256 KiB is several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStatistics {
    /// Reading.
    pub read: Requests,
    /// Writing, in any way.
    pub write: Requests,
    /// Waiting for stable storage (SYNCHRONIZE CACHE).
    pub flush: Requests,
    /// Everything else: VERIFY, UNMAP and such.
    pub other: Requests,
}

/// What an iSCSI target says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub enum TargetEvent {
    /// It accepts connections at this address. Always the first line.
    #[serde(rename = "listening")]
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// An initiator has reached the full-feature phase of a normal session.
    #[serde(rename = "login")]
    Login {
        /// Its iSCSI name, as it gave it.
        initiator: String,
        /// From where.
        peer: SocketAddr,
        /// Which boot, when boot secrets are in use.
        boot: Option<BootNumber>,
    },
    /// A login was refused.
    #[serde(rename = "login.refused")]
    LoginRefused {
        /// From where.
        peer: SocketAddr,
        /// Why, in a few words. Never a secret.
        reason: String,
    },
    /// The first block was read in the current session.
    #[serde(rename = "read.first")]
    FirstRead,
    /// The first block was written in the current session.
    #[serde(rename = "write.first")]
    FirstWrite,
    /// Totals since the target started. At most one a second, and only when they changed.
    #[serde(rename = "traffic")]
    Traffic {
        /// Bytes read from the disk.
        read_bytes: u64,
        /// Bytes written to the disk.
        written_bytes: u64,
    },
    /// What the session of this peer asked of the disk since it began. At most one in five seconds, only when it has
    /// changed, and a last one before its `logout`.
    #[serde(rename = "session.statistics")]
    Statistics {
        /// From where the session came.
        peer: SocketAddr,
        /// What it asked for.
        statistics: Box<SessionStatistics>,
    },
    /// A session ended.
    #[serde(rename = "logout")]
    Logout {
        /// From where it had come.
        peer: SocketAddr,
        /// `logout`, `reinstated`, `fenced`, `disconnected` or `protocol error`.
        reason: String,
    },
    /// A second login came beside a living session, and was refused.
    #[serde(rename = "session.conflict")]
    SessionConflict {
        /// The newcomer.
        peer: SocketAddr,
        /// The session that stays.
        holder: SocketAddr,
    },
    /// The store has no space left; writes fail with DATA PROTECT until it has.
    #[serde(rename = "space.exhausted")]
    SpaceExhausted,
}

/// What the boot services say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub enum NetbootEvent {
    /// DHCP, TFTP and HTTP accept packets at this address. Always the first line.
    #[serde(rename = "listening")]
    Listening {
        /// Where.
        address: Ipv4Addr,
    },
    /// A DHCP answer was sent.
    #[serde(rename = "dhcp")]
    Dhcp {
        /// To which NIC.
        mac: MacAddr,
        /// `offer`, `ack`, `nak`, or `proxy` for boot information beside another server.
        answer: String,
        /// The address given.
        address: Option<Ipv4Addr>,
        /// The client's architecture (option 93, RFC 4578 section 2.1).
        architecture: Option<u16>,
        /// The boot file named in the answer.
        file: Option<String>,
    },
    /// A loader was sent whole.
    #[serde(rename = "loader")]
    Loader {
        /// To which address.
        address: Ipv4Addr,
        /// To which NIC, when the address is known.
        mac: Option<MacAddr>,
        /// Which file.
        file: String,
        /// Its size.
        bytes: u64,
        /// `tftp` or `http`.
        protocol: String,
    },
    /// A script was sent.
    #[serde(rename = "script")]
    Script {
        /// To which NIC.
        mac: MacAddr,
        /// To which address.
        #[serde(default)]
        address: Option<Ipv4Addr>,
        /// The instance it boots, or nothing for wait-and-retry.
        instance: Option<InstanceId>,
        /// The boot number it carries.
        boot: Option<BootNumber>,
    },
    /// A request was refused: a spent or foreign token, or a NIC out of place.
    #[serde(rename = "refused")]
    Refused {
        /// From which address.
        address: Ipv4Addr,
        /// From which NIC, when the address is known.
        #[serde(default)]
        mac: Option<MacAddr>,
        /// Why, in a few words.
        reason: String,
    },
}

/// What a broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub enum BrokerEvent {
    /// The volumes are open, and clients may connect. Always the first line.
    #[serde(rename = "listening")]
    Listening,
    /// The agent started it again: it had ended by itself. The agent says this, no broker.
    #[serde(rename = "broker.restarted")]
    Restarted {
        /// How the one before ended, for people.
        after: String,
    },
}

/// What the agent sees on its bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub enum BridgeEvent {
    /// A node's MAC is at one port and was seen at a second, where it was dropped.
    #[serde(rename = "mac.conflict")]
    MacConflict {
        /// Which.
        mac: MacAddr,
        /// The port where it was seen first.
        place: String,
        /// The port where it was seen as well.
        second: String,
    },
}

/// What the agent says of its own work. Each fault is told once, when it begins or its reason changes, and once when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", deny_unknown_fields)]
pub enum HostEvent {
    /// Something does not go, and is tried again.
    #[serde(rename = "fault")]
    Fault {
        /// What.
        about: About,
        /// Why, for people. No secret.
        reason: String,
    },
    /// It goes again.
    #[serde(rename = "mended")]
    Mended {
        /// What.
        about: About,
    },
    /// Somebody else had removed rules of this host's firewall that hold this network. They are in force again.
    #[serde(rename = "rules.restored")]
    RulesRestored {
        /// The table.
        table: String,
    },
}

/// What of an agent's work is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The desired state: what the control plane answered cannot be followed. The last good one is.
    Desired,
    /// The network on the host: its bridge, uplink, segment, addresses and rules. Nothing new is started.
    Network,
    /// The host: what runs there cannot be seen, such as with an engine that is down. Nothing is changed.
    Host,
}

impl About {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Network => "network",
            Self::Host => "host",
        }
    }
}

/// An event as the agent passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEvent {
    /// When it happened: as its process says, but not before the one before it nor after the agent read it.
    pub at: Timestamp,
    /// Who said it, and what.
    pub from: EventSource,
}

/// Which process an event came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "process", rename_all = "snake_case")]
pub enum EventSource {
    /// The target of one instance.
    Target {
        /// Whose.
        instance: InstanceId,
        /// What.
        said: TargetEvent,
    },
    /// The network's boot services.
    Netboot {
        /// What.
        said: NetbootEvent,
    },
    /// The broker of one instance.
    Broker {
        /// Whose.
        instance: InstanceId,
        /// What.
        said: BrokerEvent,
    },
    /// The agent itself, of its bridge.
    Bridge {
        /// What.
        said: BridgeEvent,
    },
    /// The agent itself, of its work.
    Agent {
        /// What.
        said: HostEvent,
    },
}

/// The body of an event request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventBatch {
    /// At most [`BATCH_MAX`], oldest first.
    pub events: Vec<AgentEvent>,
}
