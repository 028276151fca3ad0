//! The NBD client against real servers: `qemu-nbd`, `qemu-storage-daemon` and `nbdkit`. A server that is not installed
//! fails the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod contents;
mod death;
mod driver;
mod errors;
mod order;
mod server;
mod start;
