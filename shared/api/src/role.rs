//! Roles, and why something is allowed or refused.

use bmi_types::{Name, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Free text, at most 1 024 characters.
    pub description: String,
    /// What it permits: `image:write`, `image:*` or `*`.
    pub permissions: Vec<String>,
    /// Whether it comes with BMI and cannot be changed.
    pub built_in: bool,
    /// When it was made; nothing for a built-in one.
    pub created_at: Option<Timestamp>,
    /// Grows with each change; the `ETag`. 0 for a built-in one.
    pub version: i64,
}

/// What makes a custom role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// Its name; not that of a built-in one.
    pub name: Name,
    /// Free text.
    #[schema(required = false, max_length = 1024)]
    pub description: String,
    /// What it permits, at least one.
    pub permissions: Vec<String>,
}

/// What changes a custom role. Absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolePatch {
    /// Another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub description: Option<String>,
    /// Other permissions, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
}

/// Why something is allowed or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Of whom it was asked.
    pub subject: String,
    /// What: `image:write`.
    pub action: String,
    /// The id of the project; everywhere when there is none.
    pub project: Option<String>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rule that decided, or why there is none; for people.
    pub reason: String,
    /// The subject whose role decided: the caller's own or a group.
    pub by_subject: Option<String>,
    /// The role that decided.
    pub by_role: Option<String>,
    /// The permission of the role that decided.
    pub by_permission: Option<String>,
    /// The roles of the subject, with where they hold.
    pub roles: Vec<crate::WhoamiRole>,
}
