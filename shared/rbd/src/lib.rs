//! Ceph's block devices: safe, asynchronous Rust over librados and librbd.
//!
//! A [`Cluster`] is one Ceph client. It gives [`Pool`]s, each one namespace of a pool, and those give [`Image`]s. Reads,
//! writes and flushes are asynchronous in librbd itself; every other call waits in the library, on a thread of its own,
//! with a bound on how long anybody waits for it. Commands of the monitors are [`Cluster::command`].
//!
//! Deliberately absent: any opinion on names or who may do what; retries; a cache of our own; the `ceph` crate (3.2.5), whose
//! monitor commands read what they have freed when the monitors refuse one, and lose the `errno`.
//!
//! Invariants:
//! - This is the only crate with `unsafe`. A handle of the library is closed once, after its last use: who uses it holds
//!   an [`std::sync::Arc`] of it, a read or write under way included.
//! - No call of the library is made on a thread of the runtime but those that only begin something.
//! - An error says which call failed, of what, and with which `errno`.
//! - A key is in no message and in no file that others can read.
//!
//! Without the feature `ceph` there is nothing here, and nothing is linked.
#![cfg(feature = "ceph")]

mod cluster;
mod error;
mod exit;
pub mod features;
mod header;
mod image;
mod locks;
mod monitor;
mod pool;
mod settings;
mod sys;
mod text;
mod threads;

pub use cluster::Cluster;
pub use error::RbdError;
pub use header::Header;
pub use image::{Access, Extent, Image, Parent, Watcher};
pub use locks::LockOwner;
pub use monitor::CommandError;
pub use pool::{Child, Entry, Pool, Trashed};
pub use settings::{Identity, Settings, Timeouts};

/// What a long call is told of: done, in all. `false` asks it to stop.
pub type Progress = Box<dyn FnMut(u64, u64) -> bool + Send>;
