//! Projects that do not trust each other: who may do what, what nobody learns of another, quotas, and the audit log.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by panicking"
)]

mod audit;
mod crossing;
mod matrix;
mod quota;
mod roles;
mod world;
