//! Typed identifiers. Each is a UUID version 7, so that ids sort by creation time on every database.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a UUID")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
}

macro_rules! typed_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, later than every id made before it on this machine.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID inside.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(out)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { text: text.to_owned() })
            }
        }
    )+};
}

typed_id! {
    /// A tenant agent.
    AgentId,
    /// An authority that issues certificates of agents.
    AuthorityId,
    /// An image.
    ImageId,
    /// A provisioned instance.
    InstanceId,
    /// A token with which an agent joins a network.
    JoinTokenId,
    /// A provisioning network.
    NetworkId,
    /// A physical server.
    NodeId,
    /// A request that takes time.
    OperationId,
    /// A tenant.
    ProjectId,
    /// A caller that is a program.
    ServiceAccountId,
    /// A token of a service account.
    ServiceTokenId,
    /// A checkpoint of a boot volume.
    TagId,
    /// The content of a boot volume, config volume or image in a data store.
    VolumeId,
}
