//! What is served: a volume, as the server needs it.
//!
//! An error that a client may hear of and go on is told from one after which this process must not write any more.

#[cfg(test)]
pub mod memory;
pub mod rbd;

use std::error::Error;

use bytes::Bytes;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Somebody else may write now: this process's client is on the blocklist, or its lock was taken. Nothing that it
    /// still does can be trusted.
    #[error("the volume was taken away from this process")]
    Fenced(#[source] Box<dyn Error>),
    /// The store is full.
    #[error("the store has no space left")]
    NoSpace(#[source] Box<dyn Error>),
    /// Anything else.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error>),
}

/// A volume that is open. Requests are within it, and any number of them is under way together, in any order.
///
/// A request that was begun goes on when its future is dropped: whoever must know when it is over waits for it.
pub trait Volume: 'static {
    /// Bytes.
    fn size(&self) -> u64;

    /// Whether a write that was answered may be lost with this process until it is flushed.
    fn is_cached(&self) -> bool;

    /// Reads.
    fn read(&self, offset: u64, length: u32) -> impl Future<Output = Result<Bytes, VolumeError>>;

    /// Writes.
    fn write(&self, offset: u64, data: Bytes) -> impl Future<Output = Result<(), VolumeError>>;

    /// Makes durable what was answered.
    fn flush(&self) -> impl Future<Output = Result<(), VolumeError>>;

    /// Drops what is there: it may read as anything.
    fn discard(&self, offset: u64, length: u64) -> impl Future<Output = Result<(), VolumeError>>;

    /// Makes it read as zeroes; holes where that is possible.
    fn write_zeroes(&self, offset: u64, length: u64) -> impl Future<Output = Result<(), VolumeError>>;

    /// Ends its use: what was answered is durable, and nobody has to wait for this process. Nothing is under way.
    fn close(self) -> impl Future<Output = Result<(), VolumeError>>;
}
