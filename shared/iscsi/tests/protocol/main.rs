//! The protocol as an initiator sees it: a [`pair::Pair`] of a small initiator and a [`bmi_iscsi::Connection`] with a
//! disk in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod atomic;
mod chap;
mod commands;
mod digests;
mod discovery;
mod fuzz;
mod login;
mod malformed;
mod mode_select;
mod operations;
mod pair;
mod reservations;
mod rig;
mod task_management;
mod writes;
