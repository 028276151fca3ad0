//! What requests do: one file per noun, named as in the API.
//!
//! Each function takes the caller, and comes to the data only through [`access`]: there it is authorized first. What
//! it changes, it changes in one transaction.

mod access;
mod agent;
pub mod agent_replace;
pub mod audit;
pub mod authentication;
pub mod authority;
mod boot_watch;
pub mod changes;
pub mod datastore;
mod desired;
pub mod enrolled_agent;
pub mod enrolment;
pub mod image;
pub mod instance;
pub mod join_token;
pub mod member;
pub mod metrics;
pub mod network;
pub mod network_timeline;
pub mod node;
pub mod operation;
pub mod policies;
pub mod project;
pub mod quota;
pub mod rate_limit;
pub mod role;
pub mod service_account;
pub mod sign_in;
mod speaker;
mod timeline;
pub mod upload;
mod wake;
pub mod whoami;

use std::sync::Arc;
use std::time::Duration;

use bmi_api::Code;
use bmi_auth::MasterKey;
use bmi_db::{Db, Reference};
use bmi_drivers::isolation::NetworkIsolation;
use bmi_drivers::power::PowerDriver;
use bmi_drivers::store::{DataStore, ImportDir};

pub use access::Access;
pub use agent::{events as agent_events, status as agent_status};
pub use authority::Enrolling;
pub use boot_watch::{BootLimits, watch as boots_watch};
pub use desired::{Desired, desired_state};
pub use speaker::{Peer, Speaker};
pub use timeline::timeline;
pub use wake::Wake;

use crate::error::AppError;

/// Everything the application works with.
pub struct App {
    /// State.
    pub db: Db,
    /// Images and volumes.
    pub store: Arc<dyn DataStore>,
    /// Wires.
    pub isolation: Arc<dyn NetworkIsolation>,
    /// Power.
    pub power: Arc<dyn PowerDriver>,
    /// Who may do what.
    pub policies: policies::Policies,
    /// What a project may have that has no quota of its own.
    pub quota_defaults: quota::Defaults,
    /// Chains and signs the audit log.
    pub audit: audit::Chain,
    /// How many requests somebody may make.
    pub rate_limit: rate_limit::RateLimit,
    /// Seals what the database holds.
    pub master_key: MasterKey,
    /// How callers prove who they are.
    pub authentication: authentication::Authentication,
    /// How agents join; nothing where none can.
    pub enrolling: Option<Enrolling>,
    /// Files that may be imported.
    pub import_dir: Option<ImportDir>,
    /// How long one attempt of a workflow waits for an agent. The engine tries again.
    pub agent_wait: Duration,
    /// When a boot counts as failed.
    pub boot_limits: BootLimits,
    /// How the service does.
    pub metrics: metrics::Metrics,
    /// Wakes who waits for a change.
    pub wake: Wake,
}

/// Reads a `{name-or-id}` of a path.
pub(crate) fn reference(text: &str) -> Result<Reference, AppError> {
    Reference::parse(text).ok_or_else(AppError::not_found)
}

/// Refuses when the caller knows an older version than there is.
pub(crate) fn if_match(expected: Option<i64>, version: i64) -> Result<(), AppError> {
    match expected {
        Some(expected) if expected != version => Err(stale(version)),
        _ => Ok(()),
    }
}

pub(crate) fn stale(version: i64) -> AppError {
    AppError::refused(Code::StaleVersion, format!("the current version is {version}; read it again"))
}
