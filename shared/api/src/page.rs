//! One page of a list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page: its items, oldest first, and the cursor of the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// At most `limit` items (query parameter, 1 to 500, 100 unless given).
    pub items: Vec<T>,
    /// Pass it back as `cursor` for the next page. Absent on the last page. Opaque.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}
