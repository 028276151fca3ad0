//! The audit log.

use bmi_types::{ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// In which project.
    pub project: Option<ProjectId>,
    /// What: `image:write`.
    pub action: String,
    /// Kind, id and name of what it was done to.
    pub object: Option<(String, String, String)>,
    /// `done`, `failed` or `denied`.
    pub outcome: String,
    /// The request that asked for it; empty for what the server did by itself.
    pub request: String,
    /// More about it, for people.
    pub detail: String,
    /// Its place in the chain; nothing in the first second.
    pub position: Option<i64>,
}

/// A row as it is chained: `hash` is SHA-256 in hexadecimal over the hash before it, a line feed and `text`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Its place: one more than the row before.
    pub position: i64,
    /// The canonical text.
    pub text: String,
    /// The hash of the chain down to it.
    pub hash: String,
    /// Whether what the row is searched by is what its text says.
    pub consistent: bool,
}

/// A signed place of the chain: Ed25519 (RFC 8032) over `bmi-audit-<kind>`, the position, the hash and the time in
/// microseconds, each followed by a line feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// `head`, or `checkpoint`: what came before it was removed by retention.
    pub kind: String,
    /// The place.
    pub position: i64,
    /// The hash there.
    pub hash: String,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// The public key, in base64 without padding.
    pub public_key: String,
    /// The signature, in base64 without padding.
    pub signature: String,
}

/// A piece of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditChain {
    /// Rows in order; fewer than asked for at the end.
    pub rows: Vec<AuditRow>,
    /// The newest signed head.
    pub head: Option<AuditHead>,
    /// The newest checkpoint: the chain begins behind it.
    pub checkpoint: Option<AuditHead>,
    /// Why the server itself does not trust the chain: it no longer leads through the head that the server signed last.
    pub broken: Option<String>,
}
