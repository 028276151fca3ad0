//! The database, as SQLite and as PostgreSQL: what holds for one holds for the other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod hold;
mod journal;
mod leases;
mod migrations;
mod plans;
mod sql;
mod stages;
mod transactions;
mod transfers;
