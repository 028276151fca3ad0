//! The control plane: the REST API, the database, the workflows, and what agents are told.
//!
//! ```text
//! http/       what a request is: reading it field by field, and answering
//! app/        what it does: one file per noun, each function one transaction
//! workflows/  what takes time: provision, deprovision, images
//! reconcile/  what is compared with the database, again and again
//! sealed.rs   the master key, and sealing everything under a new one
//! ```
//!
//! Deliberately absent: the data path. Running nodes go on when this process does not.
//!
//! Invariants: an external effect is preceded by its intent in the database; every request that changes something
//! is authorized inside the application layer; nothing here listens on a provisioning network.

pub mod agents_tls;
pub mod app;
pub mod code;
pub mod config;
pub mod data_dir;
pub mod error;
pub mod http;
pub mod reconcile;
pub mod sealed;
pub mod tls;
pub mod workflows;
