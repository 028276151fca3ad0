//! Features of images that decide where their data are, as [`crate::Header::features`] has them.

use crate::sys;

/// Writes are in a journal first.
pub const JOURNALING: u64 = sys::RBD_FEATURE_JOURNALING as u64;
/// Writes are in a cache of who writes first.
pub const DIRTY_CACHE: u64 = sys::RBD_FEATURE_DIRTY_CACHE as u64;
/// It is the mirror of an image elsewhere, and follows it.
pub const NON_PRIMARY: u64 = sys::RBD_FEATURE_NON_PRIMARY as u64;
/// A part of its data is elsewhere: in another image, a file, at a web server.
pub const MIGRATING: u64 = sys::RBD_FEATURE_MIGRATING as u64;

/// All that librbd 16.2 knows.
pub const KNOWN: u64 = (sys::RBD_FEATURE_LAYERING
    | sys::RBD_FEATURE_STRIPINGV2
    | sys::RBD_FEATURE_EXCLUSIVE_LOCK
    | sys::RBD_FEATURE_OBJECT_MAP
    | sys::RBD_FEATURE_FAST_DIFF
    | sys::RBD_FEATURE_DEEP_FLATTEN
    | sys::RBD_FEATURE_JOURNALING
    | sys::RBD_FEATURE_DATA_POOL
    | sys::RBD_FEATURE_OPERATIONS
    | sys::RBD_FEATURE_MIGRATING
    | sys::RBD_FEATURE_NON_PRIMARY
    | sys::RBD_FEATURE_DIRTY_CACHE) as u64;
