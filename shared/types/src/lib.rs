//! The words every part of BMI shares: typed ids, names, addresses, sizes, times and the boot-secret derivation.
//!
//! Deliberately absent: I/O, a clock that is read implicitly (only [`Timestamp::now`] reads one), and anything that
//! only one process needs.
//!
//! Invariant: a value of one of these types is valid. Text is parsed once, at the edge, and never checked again.

mod boot;
mod ceph;
mod chain;
mod id;
mod image;
mod iqn;
mod mac;
mod name;
mod network;
#[cfg(feature = "openapi")]
pub mod schema;
mod secret;
mod size;
mod time;

pub use boot::{BootKey, BootNumber, BootUser, boot_secret};
pub use ceph::CephKey;
pub use chain::chain;
pub use id::{
    AgentId, AuthorityId, ImageId, InstanceId, JoinTokenId, NetworkId, NodeId, OperationId, ParseIdError,
    ProjectId, ServiceAccountId, ServiceTokenId, TagId, VolumeId,
};
pub use image::{ImageFormat, ImageFormatError};
pub use iqn::{Iqn, IqnError};
pub use mac::{MacAddr, MacError};
pub use name::{Name, NameError};
pub use network::{
    Architecture, DhcpMode, Ipv4Range, NetworkPlan, PlanFault, RangeError, Segment, VLAN_MAX, VXLAN_MAX,
};
pub use secret::{Secret, exposed};
pub use size::{ByteSize, SizeError};
pub use time::Timestamp;

/// IPv4 networks, re-exported so that every crate uses one version.
pub use ipnet::Ipv4Net;
