//! Nodes: physical servers, owned by the provider.

use bmi_types::{Architecture, MacAddr, Name, NodeId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// Where a node is in its life.
    NodeState {
        /// Assigned to nobody. Enters: created, released. Leaves: `assign`, `delete`.
        Free = "free",
        /// Assigned to a project, without an instance. Enters: `assign`, deprovision. Leaves: `release`, provision.
        Assigned = "assigned",
        /// An instance uses it. Enters: provision. Leaves: deprovision, or a provision that was undone.
        InUse = "in-use",
    }
}

words! {
    /// How a node is switched on and off.
    Power {
        /// By hand: BMI only says when to.
        Manual = "manual",
    }
}

/// A network interface of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nic {
    /// Its address, unique among all nodes.
    pub mac: MacAddr,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name, unique among nodes.
    pub name: Name,
    /// Its interfaces, the boot interface first.
    pub nics: Vec<Nic>,
    /// Its processor architecture.
    pub architecture: Architecture,
    /// How it is switched on.
    pub power: Power,
    /// Where it is in its life.
    pub state: NodeState,
    /// The project it is assigned to.
    pub project: Option<ProjectId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// What creates a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Its name.
    pub name: Name,
    /// 1 to 8 interfaces, the boot interface first.
    #[schema(min_items = 1, max_items = 8)]
    pub nics: Vec<Nic>,
    /// Its processor architecture.
    #[schema(required = false)]
    pub architecture: Architecture,
    /// How it is switched on.
    #[schema(required = false)]
    pub power: Power,
}

/// What changes a node. Absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// Another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Other interfaces; only while no instance uses the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 8)]
    pub nics: Option<Vec<Nic>>,
}

/// To whom a node is assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeAssign {
    /// The project's name or id.
    pub project: String,
}
