//! Devices that are asked directly: in memory, in the page cache, and past it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "tests")]

mod array;
mod direct;
mod resident;
