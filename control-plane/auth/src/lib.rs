//! Who is calling, and how secrets are kept: tokens, the master key, sealing.
//!
//! Deliberately absent: what a caller may do (that is the authorizer's), HTTP, and the database.

mod caller;
mod master_key;
mod secret_file;
mod token;

pub use caller::{Caller, Role};
pub use master_key::{MasterKey, SealError};
pub use secret_file::SecretFileError;
pub use token::LocalAdmin;
