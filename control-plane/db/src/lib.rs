//! The control plane's state, in SQLite or PostgreSQL through one schema.
//!
//! One module per noun, functions called `noun_verb` in spirit: `node::insert`, `node::find`. They take a connection
//! inside a transaction, so that a request is one transaction whatever it touches. What is read comes back as the
//! API's own types.
//!
//! Deliberately absent: decisions. This crate finds, counts and writes; who may, and what follows, is the
//! application's.
//!
//! Invariants: times and ids come from the caller, never from SQL; a list is read by key, never by offset; no query
//! without a scope ([`Tx`]).

mod bridge;
#[cfg(feature = "ceph")]
mod ceph;
mod connection;
mod database;
mod error;
mod hold;
mod inventory;
mod key;
mod migration;
mod schema;
mod scope;
pub mod sealed;
mod transaction;

pub mod agent;

pub mod audit;
pub mod authority;
pub mod binding;
pub mod counts;
pub mod enrolled_agent;
pub mod idempotency;
pub mod image;
pub mod instance;
pub mod join_token;
pub mod journal;
pub mod known;
pub mod lease;
pub mod login;
pub mod network;
pub mod network_event;
pub mod node;
pub mod operation;
mod policy;
pub mod project;
pub mod quota;
pub mod role;
pub mod service_account;
pub mod session;
pub mod sign_in;
pub mod stage;
pub mod transfer;
pub mod upload;

pub use bridge::BridgeTables;
#[cfg(feature = "ceph")]
pub use ceph::CephTables;
pub use connection::Db;
pub use database::Kind;
pub use error::DbError;
pub use hold::{Held, Purpose};
pub use inventory::DbInventory;
pub use key::{After, Reference};
pub use policy::{ConfiguredBinding, PolicyAdapter};
pub use scope::{InProject, SystemTx, Tx};
