//! Who is calling and what it may do; and how secrets are kept: tokens, the master key, sealing.
//!
//! Deliberately absent: HTTP, and the database.

pub mod audit;
pub mod authority;
mod caller;
mod master_key;
pub mod oidc;
pub mod policy;
mod secret_file;
pub mod secret_token;
mod token;

pub use audit::AuditKey;
pub use authority::{Authority, AuthorityError, SpiffeId};
pub use caller::{Caller, Limits, Proof, Subject, Trace};
pub use master_key::{MasterKey, SealError};
pub use policy::{Action, Binding, Decision, Domain, Permission, Policy, Scope};
pub use secret_file::{SecretFileError, load as secret_load};
pub use token::LocalAdmin;
