//! Service accounts: callers that are programs, each in one project.

use bmi_types::{Name, ProjectId, Secret, ServiceAccountId, ServiceTokenId, Timestamp, exposed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAccount {
    /// Its id.
    pub id: ServiceAccountId,
    /// Its name, unique in its project.
    pub name: Name,
    /// Its project, outside of which it never acts.
    pub project: ProjectId,
    /// Free text, at most 1 024 characters.
    pub description: String,
    /// What it is limited to, whatever its roles allow: `object:act`, `object:*` or `*`.
    pub scopes: Vec<String>,
    /// Its tokens that have not expired, oldest first.
    pub tokens: Vec<ServiceToken>,
    /// Who made it.
    pub created_by: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// A token of a service account, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceToken {
    /// Its id.
    pub id: ServiceTokenId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// A service account and its new token, which is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAccountWithToken {
    /// The account.
    pub account: ServiceAccount,
    /// The token: `bmi-sa-…`.
    #[serde(with = "exposed")]
    #[schema(value_type = String)]
    pub token: Secret,
}

/// What creates a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServiceAccount {
    /// Its name.
    pub name: Name,
    /// Free text.
    #[schema(required = false, max_length = 1024)]
    pub description: String,
    /// A role in the project, such as `project-member`.
    #[schema(min_length = 1, max_length = 63)]
    pub role: String,
    /// What it is limited to: `object:act`, `object:*` or `*`.
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Vec<String>,
    /// Days until its token ends.
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_days: u32,
}

/// What changes a service account. Absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountPatch {
    /// Another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub description: Option<String>,
    /// Other limits; they hold for the tokens there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Option<Vec<String>>,
}

/// What makes a new token of a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServiceToken {
    /// Days until it ends.
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_days: u32,
    /// Seconds that the tokens before it live on, so that it can be put where they are used.
    #[schema(required = false, maximum = 2592000, default = 0)]
    pub overlap_s: u32,
}
