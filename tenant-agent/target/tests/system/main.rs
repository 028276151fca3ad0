//! The real binary against a second implementation: libiscsi, through Debian's `iscsi-ls`, `iscsi-inq`,
//! `iscsi-test-cu` and `qemu-img`. A tool that is missing fails the test: what could not run is not green.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod boot_gate;
mod command_line;
mod firmware;
mod honesty;
mod hostile;
mod images;
mod login;
mod long_reads;
mod nbd;
mod reset;
mod statistics;
mod takeover;
mod target;
mod wire;
