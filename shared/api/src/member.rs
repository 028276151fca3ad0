//! Members: who has which role in a project, or everywhere.

use bmi_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A role that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its id.
    pub id: Uuid,
    /// Who: `user:<provider>:<sub>`, `group:<provider>:<value>` or `service-account:<id>`; `bmi whoami` shows one's own.
    pub subject: String,
    /// The role.
    pub role: String,
    /// When it was given.
    pub created_at: Timestamp,
    /// Who gave it.
    pub created_by: String,
}

/// What gives somebody a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// Who.
    #[schema(max_length = 512)]
    pub subject: String,
    /// The role: a built-in or a custom one.
    pub role: String,
}
