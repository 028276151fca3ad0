//! Block devices behind an iSCSI target: [`File`] and [`Memory`], and [`nbd`] for what a server on this host stores.
//!
//! Deliberately absent: caching (the kernel's page cache is the only one, and can be left out) and threads. An operation of a
//! [`BlockDevice`] is done when its call returns; an [`nbd::Nbd`] is no such device, since it never waits.
//!
//! Invariants: nothing outside the device's size is touched; what [`BlockDevice::discard`] or
//! [`BlockDevice::write_zeroes`] covered reads as zeros; a write that was reported done survives a crash once
//! [`BlockDevice::flush`] has returned, if the device is persistent.
#![forbid(unsafe_code)]

mod device;
mod direct;
mod error;
mod file;
mod memory;
pub mod nbd;
mod stable;

pub use device::{BlockDevice, Extent};
pub use error::{BlockError, Operation};
pub use file::{Access, Caching, File};
pub use memory::Memory;
pub use stable::{Flush, Mark, Stable};
