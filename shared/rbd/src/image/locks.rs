//! Who has an image open, and who may write to it.

use std::os::raw::c_char;
use std::ptr;

use super::Image;
use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::listed;
use crate::sys;
use crate::text::{from_c, to_c};

/// Who holds the exclusive lock, as Ceph has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockOwner {
    /// Its address, as a blocklist has it: `ip:port/nonce`.
    pub address: String,
}

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

    /// Who holds the exclusive lock.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn lock_owners(&self) -> Result<Vec<LockOwner>, RbdError> {
        let asked = self.call("ask for the lock of", |handle| {
            let mut mode = sys::RBD_LOCK_MODE_EXCLUSIVE;
            let mut list: Vec<*mut c_char> = listed(Null(ptr::null_mut()), |items, count| {
                // SAFETY: the image is open, and there is room for as many texts as is told; `Null` is a pointer.
                unsafe {
                    sys::rbd_lock_get_owners(handle.raw, &raw mut mode, items.cast::<*mut c_char>(), count)
                }
            })?
            .into_iter()
            .map(|item| item.0)
            .collect();
            // SAFETY: the library filled these texts.
            let owner = |text: &*mut c_char| LockOwner { address: unsafe { from_c(*text) } };
            let owners = list.iter().map(owner).collect();
            // SAFETY: the library frees what it put there, which is used no more.
            unsafe { sys::rbd_lock_get_owners_cleanup(list.as_mut_ptr(), list.len()) };
            Ok(owners)
        });
        match asked.await {
            Ok(owners) => Ok(owners),
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Takes the exclusive lock away from somebody.
    ///
    /// # Errors
    /// When that is not who holds it.
    pub async fn lock_break(&self, owner: &LockOwner) -> Result<(), RbdError> {
        let address = owner.address.clone();
        self.call("break the lock of", move |handle| {
            let address = to_c(&address)?;
            // SAFETY: the image is open, and the address ends with a NUL.
            check(unsafe { sys::rbd_lock_break(handle.raw, sys::RBD_LOCK_MODE_EXCLUSIVE, address.as_ptr()) })
                .map(drop)
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

/// A pointer that can be in a list.
#[derive(Clone)]
#[repr(transparent)]
struct Null(*mut c_char);
