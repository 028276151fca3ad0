//! Data stores: where images and volumes are.

use bmi_types::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A data store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Datastore {
    /// Its kind, as in the configuration: `local`.
    pub kind: String,
    /// Bytes it can hold.
    pub capacity: ByteSize,
    /// Bytes in use; blocks that clones share count once.
    pub used: ByteSize,
}
