//! Agents of other hosts: how they join, who they are, and what each may say and hear.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

mod authorities;
mod crossing;
mod flood;
mod hosts;
mod joining;
mod renewal;
mod replaced;
mod restored;
mod timeline;
mod verbs;
