//! Fuzzing of the iSCSI target on a stable compiler.
//!
//! ```text
//! targets/      what bytes mean: a stream, a login, operations, commands; each a function of any bytes
//! peer.rs       the other side of a connection; it checks whatever the target does
//! disk.rs       disks in memory; they check what they are given to do
//! trace.rs      what was seen of the target, which stands in for coverage
//! driver.rs     the loop: mutate, run, keep what shows something new
//! mutation.rs   how an input is changed
//! seeds.rs      where inputs begin; checked in under `seeds/`, and written by this
//! input.rs      bytes taken one after another
//! ```
//!
//! A target panics when the iSCSI target breaks a rule, and so can be wrapped for libFuzzer as it is.
//!
//! Deliberately absent: coverage by instrumentation, which needs an unstable compiler.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a broken rule ends a run by a panic, and its results go to standard output"
)]

pub mod disk;
pub mod driver;
pub mod input;
pub mod mutation;
pub mod peer;
pub mod seeds;
pub mod targets;
pub mod trace;
