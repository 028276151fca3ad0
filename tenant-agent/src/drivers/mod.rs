//! How targets are run, wired and fenced in. The only place that knows netlink and nftables.

pub mod container;
pub mod firewall;
pub mod in_use;
pub mod links;
pub mod namespace;
pub mod overlap;
pub mod ports;
pub mod process;
pub mod segment;
pub mod tgt;
pub mod wires;

use bmi_agent_api::config::{BootGate, NetbootConfig};
use tokio::sync::mpsc;

use crate::helper::verbs::{Found, Said};
use crate::plan::names::ProcessId;
use crate::plan::spec::{NetworkSpec, ProcessSpec};

/// A file a process gets with its start, and may get again.
#[derive(Debug, Clone)]
pub enum ProcessConfig {
    /// Of the boot services.
    Netboot(NetbootConfig),
    /// Of a target.
    Gate(BootGate),
    /// Of a broker: all of it is in what it should be, and it gets no other.
    Broker,
}

/// Runs the data path of one network. Every verb is idempotent, and may be cut off at any point: what is half made
/// is seen by `observe` and removed by `process_remove`.
pub trait Diskless {
    /// Why a verb was not done.
    type Error: std::error::Error + 'static;

    /// Makes the bridge and puts its rules in force.
    async fn network_ensure(&self, network: NetworkSpec) -> Result<(), Self::Error>;

    /// Removes the bridge, when it is ours, and its rules. Processes are removed before.
    async fn network_remove(&self) -> Result<(), Self::Error>;

    /// Starts a process, fenced in and wired. Done when it was told to go.
    async fn process_ensure(&self, spec: ProcessSpec, config: ProcessConfig) -> Result<(), Self::Error>;

    /// Replaces a process's configuration.
    async fn process_configure(&self, config: ProcessConfig) -> Result<(), Self::Error>;

    /// Ends a process and removes all that is left of it.
    async fn process_remove(&self, id: ProcessId) -> Result<(), Self::Error>;

    /// What exists.
    async fn observe(&self) -> Result<Found, Self::Error>;

    /// Looks after what changes by itself: rules for new node ports, logs that grow. Called about once a second.
    async fn tend(&self);
}

/// Where a driver says what happens by itself.
pub type NewsSink = mpsc::Sender<Said>;
