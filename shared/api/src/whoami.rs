//! Who is calling.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// How the caller proved who it is.
    CallerKind {
        /// The token made at first start.
        LocalAdmin = "local-admin",
    }
}

/// The caller, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// A stable name of the caller.
    pub subject: String,
    /// How it proved that.
    pub kind: CallerKind,
    /// Its roles that hold everywhere.
    pub roles: Vec<String>,
}
