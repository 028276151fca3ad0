//! Agents: who serves a network, the tokens with which they join, and the authorities that issue their certificates.

use bmi_types::{AgentId, AuthorityId, JoinTokenId, NetworkId, Secret, Timestamp, exposed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// What an agent may do.
    AgentState {
        /// It has the network.
        Active = "active",
        /// Somebody with a join token wants another key to be its own; until that is approved, only its old key counts.
        Pending = "pending",
        /// Another one has the network; this one can take over.
        Standby = "standby",
        /// It may do nothing, and never again.
        Revoked = "revoked",
    }
}

/// An agent that joined a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id, which it keeps.
    pub id: AgentId,
    /// The network that it joined.
    pub network: NetworkId,
    /// What it may do.
    pub state: AgentState,
    /// Whether it has the network now.
    pub serving: bool,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub key_sha256: String,
    /// The same of the key that waits for approval.
    pub pending_key_sha256: Option<String>,
    /// The authority that issued its newest certificate.
    pub authority: AuthorityId,
    /// When that certificate ends. The agent renews it at two thirds of its life.
    pub certificate_until: Timestamp,
    /// Its version, as it last said.
    pub agent_version: String,
    /// How far its clock was ahead of the control plane's when it last reported, in milliseconds; less than 0: behind.
    pub clock_ahead_ms: Option<i64>,
    /// When it joined.
    pub enrolled_at: Timestamp,
    /// When it last reported.
    pub last_seen: Timestamp,
    /// Grows with each change that somebody makes; the `ETag`.
    pub version: i64,
}

/// Approves the key that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentApprove {
    /// SHA-256 of that public key, as its host says it: 64 hexadecimal digits. What waits may be somebody else's.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub key_sha256: String,
}

/// Gives an agent's network to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentReplace {
    /// The one that takes over; it may be left out when one stands by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<AgentId>,
}

/// A token with which one agent joins a network, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// The network that it lets an agent join.
    pub network: NetworkId,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
    /// By which agent.
    pub agent: Option<AgentId>,
}

/// A join token, which is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenWithSecret {
    /// What is known of it.
    pub join_token: JoinToken,
    /// The token: `bmi-join-….<SHA-256 of the authority's public key>`.
    #[serde(with = "exposed")]
    #[schema(value_type = String)]
    pub token: Secret,
}

/// What makes a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The network (name or id).
    #[schema(min_length = 1, max_length = 64)]
    pub network: String,
    /// Seconds until it ends.
    #[schema(required = false, minimum = 1, maximum = 3600, default = 3600)]
    pub ttl_s: u32,
}

/// An authority that issues certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// Its id.
    pub id: AuthorityId,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub spki_sha256: String,
    /// Whether it issues the certificates of agents: the newest does.
    pub issuing: bool,
    /// Agents whose certificate it issued and that have not renewed it from a newer one.
    pub agents: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What makes a new authority, which issues from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAuthority {
    /// Only if this is the newest one: two who rotate at once then rotate once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<AuthorityId>,
}
