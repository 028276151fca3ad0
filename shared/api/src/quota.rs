//! Quotas.

use bmi_types::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One dimension of a quota that counts things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaCount {
    /// At most so many; no limit when there is none.
    pub limit: Option<u64>,
    /// So many there are.
    pub used: u64,
    /// Whether the limit was set for this project; otherwise it is the default of the configuration.
    pub own: bool,
}

/// One dimension of a quota that counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaBytes {
    /// At most so many; no limit when there is none.
    pub limit: Option<ByteSize>,
    /// So many there are.
    pub used: ByteSize,
    /// Whether the limit was set for this project; otherwise it is the default of the configuration.
    pub own: bool,
}

/// What a project may have, and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// Instances.
    pub instances: QuotaCount,
    /// Nodes that are assigned to it.
    pub nodes: QuotaCount,
    /// Images of its own.
    pub images: QuotaCount,
    /// Size of its images and boot volumes, full to the last block.
    pub virtual_bytes: QuotaBytes,
    /// What they really take in the store, as last measured: a clone takes what differs from its image.
    pub used_bytes: QuotaBytes,
    /// Grows with each change; the `ETag`. 0 when nothing was ever set.
    pub version: i64,
}

/// What sets limits. Absent ones stay; `null` goes back to the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaPatch {
    /// Instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub instances: Option<Option<u64>>,
    /// Nodes that are assigned to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub nodes: Option<Option<u64>>,
    /// Images of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub images: Option<Option<u64>>,
    /// Size of its images and boot volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ByteSize>)]
    pub virtual_bytes: Option<Option<ByteSize>>,
    /// What they really take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ByteSize>)]
    pub used_bytes: Option<Option<ByteSize>>,
}
