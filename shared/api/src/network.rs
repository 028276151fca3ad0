//! Provisioning networks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bmi_types::schema::{Ipv4Address, Ipv4Network};
use bmi_types::{DhcpMode, Ipv4Net, Ipv4Range, Name, NetworkId, NetworkPlan, ProjectId, Segment, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A provisioning network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Its name, unique among networks.
    pub name: Name,
    /// Its addresses.
    #[serde(flatten)]
    pub plan: NetworkPlan,
    /// BMI's part in DHCP.
    pub dhcp: DhcpMode,
    /// Addresses of DHCP relays that are answered.
    #[serde(default)]
    #[schema(value_type = Vec<Ipv4Address>)]
    pub relays: Vec<Ipv4Addr>,
    /// What an operator should know of these settings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warning: Option<String>,
    /// What keeps it apart.
    pub segment: Segment,
    /// The projects that may use it, as far as the caller may see them; nothing when every project may.
    pub projects: Option<Vec<ProjectId>>,
    /// Its agent, once one has reported.
    pub agent: Option<AgentStatus>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// What a network's agent last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentStatus {
    /// The generation of desired state that the agent has carried out.
    pub generation_observed: i64,
    /// The newest generation.
    pub generation: i64,
    /// State of the boot services: `absent`, `starting`, `listening` or `failed`.
    pub netboot: String,
    /// Why they failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// When it last reported.
    pub last_seen: Timestamp,
}

/// One thing that happened to a network as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkEvent {
    /// When, by the clock of whoever told it.
    pub at: Timestamp,
    /// `fault` and `mended` (what its agent says of its work), `rules.restored` (somebody removed its firewall's), `mac.conflict`, `agent.joined`, `agent.key-pending`,
    /// `agent.approved`, `agent.rejected`, `agent.revoked`, `agent.replaced`, `agent.clock`, `token.refused`, …
    pub event: String,
    /// Details by name: `about`, `reason`, `agent`, …
    pub detail: BTreeMap<String, String>,
}

/// What happened to a network as a whole, in the order in which it was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkTimeline {
    /// The network.
    pub network: NetworkId,
    /// At most 200 of a kind.
    pub events: Vec<NetworkEvent>,
}

/// What creates a network. The ranges that are not given are laid out by size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNetwork {
    /// Its name.
    pub name: Name,
    /// The network, `10.0.0.0/24`.
    #[schema(value_type = Ipv4Network)]
    pub cidr: Ipv4Net,
    /// Address of the boot services.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ipv4Address>)]
    pub netboot_address: Option<Ipv4Addr>,
    /// Addresses of targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_range: Option<Ipv4Range>,
    /// Addresses of nodes with an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_range: Option<Ipv4Range>,
    /// Addresses of machines without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery_range: Option<Ipv4Range>,
    /// BMI's part in DHCP.
    #[schema(required = false)]
    pub dhcp: DhcpMode,
    /// Addresses of DHCP relays that are answered, with `authoritative` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Ipv4Address>, required = false)]
    pub relays: Vec<Ipv4Addr>,
    /// What keeps it apart.
    #[schema(required = false)]
    pub segment: Segment,
    /// Names or ids of the projects that may use it; every project when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub projects: Option<Vec<String>>,
}

/// What changes a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPatch {
    /// Names or ids of the projects that may use it; `null` for every project. Instances that are there stay.
    #[schema(required = true)]
    pub projects: Option<Vec<String>>,
}
