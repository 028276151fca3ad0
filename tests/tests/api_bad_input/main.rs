//! Bad input, a table: each case with its status and code, and that nothing at all changed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test ends by panicking; cases are told all at once"
)]

mod content;
mod names;
mod states;
mod table;
mod values;
