//! Who has an image open to write, and the lock as its owner knows it; [`crate::Pool::lock_owners`] is everybody else's look at
//! it.

use std::ptr;

use super::Image;
use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::listed;
use crate::sys;
use crate::text::from_c;

/// Who has an image open to write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watcher {
    /// Its address, as a blocklist has it: `ip:port/nonce`.
    pub address: String,
}

impl Image {
    /// Takes the exclusive lock, and keeps it: who asks for it is refused.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn lock(&self) -> Result<(), RbdError> {
        self.call("lock", |handle| {
            // SAFETY: the image is open.
            check(unsafe { sys::rbd_lock_acquire(handle.raw, sys::RBD_LOCK_MODE_EXCLUSIVE) }).map(drop)
        })
        .await
    }

    /// Whether this client holds the exclusive lock.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn is_locked_by_us(&self) -> Result<bool, RbdError> {
        self.call("ask for the lock of", |handle| {
            let mut owner = 0;
            // SAFETY: the image is open, and the pointer is where the answer is put.
            check(unsafe { sys::rbd_is_exclusive_lock_owner(handle.raw, &raw mut owner) })?;
            Ok(owner != 0)
        })
        .await
    }

    /// Who has it open to write.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn watchers(&self) -> Result<Vec<Watcher>, RbdError> {
        self.call("list the watchers of", |handle| {
            let empty = sys::rbd_image_watcher_t { addr: ptr::null_mut(), id: 0, cookie: 0 };
            let mut list = listed(empty, |items, count| {
                // SAFETY: the image is open, and there is room for as many items as is told.
                unsafe { sys::rbd_watchers_list(handle.raw, items, count) }
            })?;
            // SAFETY: the library filled the items.
            let watcher = |item: &sys::rbd_image_watcher_t| Watcher { address: unsafe { from_c(item.addr) } };
            let watchers = list.iter().map(watcher).collect();
            // SAFETY: the library frees what it put there, which is used no more.
            unsafe { sys::rbd_watchers_list_cleanup(list.as_mut_ptr(), list.len()) };
            Ok(watchers)
        })
        .await
    }
}
