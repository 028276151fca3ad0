//! The control plane's state, in SQLite or PostgreSQL through one schema.
//!
//! One module per noun, functions called `noun_verb` in spirit: `node::insert`, `node::find`. They take a connection
//! inside a transaction, so that a request is one transaction whatever it touches. What is read comes back as the
//! API's own types.
//!
//! Deliberately absent: decisions. This crate finds, counts and writes; who may, and what follows, is the
//! application's.
//!
//! Invariants: times and ids come from the caller, never from SQL; a list is read by key, never by offset; every
//! query on something a project owns names the project.

mod connection;
mod error;
mod key;
mod schema;

pub mod agent;
pub mod counts;
pub mod idempotency;
pub mod image;
pub mod instance;
pub mod journal;
pub mod known;
pub mod network;
pub mod node;
pub mod operation;
pub mod project;
pub mod session;
pub mod stage;

pub use connection::{AnyConnection, Db};
pub use error::DbError;
pub use key::{After, Reference};
