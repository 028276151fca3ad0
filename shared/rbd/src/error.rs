//! What a call of the library failed with.

use std::io;

/// `errno`s that callers tell apart (Linux, generic numbers).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ERANGE: i32 = 34;
const ENOTEMPTY: i32 = 39;
const ECANCELED: i32 = 125;
/// Ceph's `EBLOCKLISTED`: this client may do nothing any more.
const ESHUTDOWN: i32 = 108;
const ETIMEDOUT: i32 = 110;
const EDQUOT: i32 = 122;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {place}")]
pub struct RbdError {
    /// What was asked for.
    pub operation: &'static str,
    /// Of what: `pool`, `pool/namespace` or `pool/namespace/image`.
    pub place: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl RbdError {
    pub(crate) fn new(operation: &'static str, place: impl Into<String>, errno: i32) -> Self {
        Self { operation, place: place.into(), source: io::Error::from_raw_os_error(errno.abs()) }
    }

    pub(crate) fn other(operation: &'static str, place: impl Into<String>, source: io::Error) -> Self {
        Self { operation, place: place.into(), source }
    }

    pub(crate) fn timed_out(operation: &'static str, place: impl Into<String>) -> Self {
        Self::new(operation, place, ETIMEDOUT)
    }

    /// The `errno`; 0 when the fault was found on this side of the library.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }

    /// Whether there is no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno() == ENOENT
    }

    /// Whether it is there already.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.errno() == EEXIST
    }

    /// Whether the user has no right to it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.errno(), EPERM | EACCES)
    }

    /// Whether something uses it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.errno(), EBUSY | ENOTEMPTY)
    }

    /// Whether the cluster has no room for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), ENOSPC | EDQUOT)
    }

    /// Whether this client was fenced, or has lost its lock: nothing it still has may be written.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self.errno(), ESHUTDOWN | EROFS)
    }

    /// Whether the cluster did not answer in time. What was asked may be done all the same.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.errno() == ETIMEDOUT
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.errno() == ECANCELED
    }

    /// Whether the library found what was asked to make no sense.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.errno(), EINVAL | ERANGE)
    }
}
