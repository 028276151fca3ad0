//! Drivers of the control plane: what the core asks of the world, as traits, and their implementations.
//!
//! Each trait is chosen by a tagged `kind` in the configuration; only `main.rs` names an implementation.
//!
//! Deliberately absent: anything that knows of projects' names, requests or the database.

pub mod config_volume;
pub mod image;
pub mod isolation;
pub mod power;
pub mod store;
