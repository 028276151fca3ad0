//! Several control planes on one PostgreSQL: what they do together, what one of them does when another dies, and what
//! all of them do when the database does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints what it did"
)]

mod agents;
mod changes;
mod moving;
mod operations;
mod outage;
mod parallel;
mod rekey;
mod starting;
mod takeover;
mod upgrade;
mod world;
