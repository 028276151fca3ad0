//! Instances: a node, its boot volume, its network and its target.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bmi_types::schema::Ipv4Address;
use bmi_types::{
    ByteSize, ImageId, InstanceId, Iqn, Name, NetworkId, NodeId, OperationId, ProjectId, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// Where an instance is in its life.
    InstanceState {
        /// A provision works on it. Enters: created. Leaves: to `ready`, or it vanishes when it was undone.
        Provisioning = "provisioning",
        /// Its target waits for the node. Enters: provision. Leaves: the node's first login, deprovision.
        Ready = "ready",
        /// The node has logged in. Enters: first login. Leaves: deprovision.
        Running = "running",
        /// A deprovision works on it. Leaves: it vanishes.
        Deprovisioning = "deprovisioning",
    }
}

words! {
    /// What is wrong with an instance's boot, for as long as it is.
    BootCondition {
        /// Its node has begun to boot and not logged in for too long. Leaves: the next login.
        Never = "boot.never",
        /// Its node boots again and again without coming to run. Leaves: it runs, or stops trying.
        Loop = "boot.loop",
    }
}

words! {
    /// What the agent says of an instance's target.
    TargetState {
        /// Nothing exists.
        Absent = "absent",
        /// Some of it exists.
        Starting = "starting",
        /// It accepts logins.
        Listening = "listening",
        /// The last attempt failed.
        Failed = "failed",
    }
}

/// Bytes that went over an instance's disk since its target started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Read by the node.
    pub read: ByteSize,
    /// Written by the node.
    pub written: ByteSize,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its name, unique in its project; the node's host name.
    pub name: Name,
    /// Its project.
    pub project: ProjectId,
    /// Its node.
    pub node: NodeId,
    /// The golden image its boot volume was cloned from.
    pub image: ImageId,
    /// Its network.
    pub network: NetworkId,
    /// Where it is in its life.
    pub state: InstanceState,
    /// The node's address; where another DHCP server gives it, the one it last booted from, or nothing before it did.
    #[schema(value_type = Option<Ipv4Address>)]
    pub node_address: Option<Ipv4Addr>,
    /// What is wrong with its boot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub condition: Option<BootCondition>,
    /// The target's address.
    #[schema(value_type = Ipv4Address)]
    pub target_address: Ipv4Addr,
    /// The target's name.
    pub target: Iqn,
    /// What the agent says of the target.
    pub target_state: TargetState,
    /// Bytes read and written.
    pub traffic: Traffic,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// What the config volume tells the node's first boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserData {
    /// SSH public keys of the first user.
    pub ssh_keys: Vec<String>,
    /// cloud-init user data.
    pub user_data: Option<String>,
}

/// What provisions an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInstance {
    /// Its name.
    pub name: Name,
    /// The node's name or id; it must be assigned to the project.
    pub node: String,
    /// The image's name or id; it must be sealed.
    pub image: String,
    /// The network's name or id.
    pub network: String,
    /// SSH public keys of the first user, one line each, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, max_items = 64, value_type = Vec<SshKey>)]
    pub ssh_keys: Vec<String>,
    /// cloud-init user data, at most 64 KiB. Kept sealed, never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65_536)]
    pub user_data: Option<String>,
}

/// One line of an OpenSSH public key, such as `ssh-ed25519 AAAA… name`.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^(ssh-|ecdsa-|sk-)[!-~]* [ -~]+$", max_length = 8192)]
#[expect(dead_code, reason = "it only describes the elements of `ssh_keys`")]
struct SshKey(String);

/// One thing that happened on the way to a running node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    /// When.
    pub at: Timestamp,
    /// Microseconds since the first stage.
    pub offset_us: u64,
    /// `requested`, `prepare-image`, …, `dhcp`, `loader`, `script`, `login`, `read.first`, `write.first`, …
    pub stage: String,
    /// The operation it belongs to, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<OperationId>,
    /// Details by name: `mac`, `address`, `file`, `bytes`, `boot`, …
    pub detail: BTreeMap<String, String>,
}

/// Everything known of how an instance was made and booted, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// The instance.
    pub instance: InstanceId,
    /// At most 1 000 stages.
    pub stages: Vec<Stage>,
}
