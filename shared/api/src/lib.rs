//! The public REST API's resources: one module per noun, each with what is read and what is sent.
//!
//! The server answers with these types, the CLI reads them, and the database layer builds them, so a noun has one
//! shape everywhere.
//!
//! Deliberately absent: how a request is checked (the server reads bodies field by field, to name every fault at
//! once), and anything only agents see (that is `bmi-agent-api`).

mod agent;
mod audit;
mod datastore;
mod image;
mod instance;
mod member;
mod network;
mod node;
mod operation;
mod page;
mod problem;
mod project;
mod quota;
mod role;
mod service_account;
mod sign_in;
mod whoami;

pub use agent::{
    Agent, AgentApprove, AgentReplace, AgentState, Authority, JoinToken, JoinTokenWithSecret, NewAuthority,
    NewJoinToken,
};
pub use audit::{AuditChain, AuditHead, AuditRecord, AuditRow};
pub use datastore::Datastore;
pub use image::{
    Image, ImageState, NewImage, NewImageBody, NewImageImport, NewImageImportStored, Sharing, SharingPatch,
    Upload, Visibility,
};
pub use instance::{
    BootCondition, Instance, InstanceState, NewInstance, Stage, TargetState, Timeline, Traffic, UserData,
};
pub use member::{Member, NewMember};
pub use network::{AgentStatus, Network, NetworkEvent, NetworkPatch, NetworkTimeline, NewNetwork};
pub use node::{NewNode, Nic, Node, NodeAssign, NodePatch, NodeState, Power};
pub use operation::{Operation, OperationKind, OperationState, Progress, Step, StepState, Subject};
pub use page::Page;
pub use problem::{Blocker, Code, Fault, Problem};
pub use project::{NewProject, Project, ProjectPatch};
pub use quota::{Quota, QuotaBytes, QuotaCount, QuotaPatch};
pub use role::{Explanation, NewRole, Role, RolePatch};
pub use service_account::{
    NewServiceAccount, NewServiceToken, ServiceAccount, ServiceAccountPatch, ServiceAccountWithToken,
    ServiceToken,
};
pub use sign_in::{
    DeviceAnswer, DeviceQuestion, DeviceSignIn, DeviceState, NewDeviceSignIn, Session, SignInProvider,
    SignInWays,
};
pub use whoami::{CallerKind, Whoami, WhoamiRole};

use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// Declares an enum whose JSON, text and database spelling is one lower-case word per value.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word, or nothing when the word is unknown.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::word(concat!($($doc, "\n"),*), Self::ALL.iter().map(|value| value.as_str())).into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.pad(self.as_str())
            }
        }
    };
}
pub(crate) use words;

/// How an enum of words looks in an OpenAPI document.
fn word(description: &str, words: impl Iterator<Item = &'static str>) -> Schema {
    let description = description.trim();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .enum_values(Some(words))
        .build()
        .into()
}
