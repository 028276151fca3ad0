//! What of an image is really there.

use std::os::raw::{c_int, c_void};
use std::ptr;

use super::Image;
use crate::cluster::check;
use crate::error::RbdError;
use crate::sys;
use crate::text::to_c;

/// The most extents that are told at once. An image of 64 TiB has 16 Mi objects; what has more holes than this is asked
/// for in pieces by the caller.
const EXTENTS_MAX: usize = 1 << 20;

/// A stretch of an image that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// Whose data are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    WithParent,
}

impl Image {
    /// What has data in a range, its parents' included; the rest is zero.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, RbdError> {
        self.ask(offset, length, Whose::WithParent, None).await
    }

    /// How many bytes it has by itself, by whole objects, as it is looked at: what it shares with its parent
    /// is not counted, and neither is what has not changed since a snapshot that is named.
    ///
    /// # Errors
    /// When it cannot be told, or there is no such snapshot.
    pub async fn own_bytes(&self, since: Option<&str>) -> Result<u64, RbdError> {
        let size = self.size().await?;
        let extents = self.ask(0, size, Whose::Own, since).await?;
        Ok(extents.iter().map(|extent| extent.length).sum())
    }

    async fn ask(
        &self,
        offset: u64,
        length: u64,
        whose: Whose,
        since: Option<&str>,
    ) -> Result<Vec<Extent>, RbdError> {
        let since = since.map(str::to_owned);
        let extents = self.call("compare", move |handle| {
            let since = since.map(|since| to_c(&since)).transpose()?;
            let mut extents: Vec<Extent> = Vec::new();
            let argument: *mut Vec<Extent> = &raw mut extents;
            // SAFETY: the image is open, a snapshot's name ends with a NUL and lives, and the callback is
            // called while this call lasts. By whole objects, the object map answers without asking for each.
            let asked = unsafe {
                sys::rbd_diff_iterate2(
                    handle.raw,
                    since.as_ref().map_or(ptr::null(), |since| since.as_ptr()),
                    offset,
                    length,
                    u8::from(whose == Whose::WithParent),
                    u8::from(whose == Whose::Own),
                    Some(found),
                    argument.cast::<c_void>(),
                )
            };
            check(asked)?;
            Ok(extents)
        });
        extents.await
    }
}

/// `E2BIG`.
const TOO_MANY: c_int = -7;

unsafe extern "C" fn found(offset: u64, length: usize, exists: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the library gives back what `ask` gave it, which lives on that frame while the call lasts, and calls from
    // one thread at a time.
    let extents = unsafe { &mut *argument.cast::<Vec<Extent>>() };
    if exists == 0 {
        return 0;
    }
    let length = length as u64;
    let full = extents.len() == EXTENTS_MAX;
    match extents.last_mut() {
        Some(last) if last.offset + last.length == offset => last.length += length,
        _ if full => return TOO_MANY,
        _ => extents.push(Extent { offset, length }),
    }
    0
}
