//! One image that is open.

mod extents;
mod io;
mod locks;
mod snapshots;

use std::os::raw::c_char;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi_types::Timestamp;
use tokio::sync::oneshot;

use crate::Progress;
use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::{ERANGE, Pool, with_progress};
use crate::sys;
use crate::text::{from_c, to_c};
use crate::threads::let_go;

pub use extents::Extent;
pub use locks::Watcher;
pub use snapshots::Parent;

/// The longest id of an image, with its NUL.
const ID_SIZE: usize = 256;
/// "What the object map says is not to be relied upon" (`RBD_FLAG_OBJECT_MAP_INVALID`).
const OBJECT_MAP_INVALID: u64 = 1;
/// The longest value of metadata that is read, in bytes.
const METADATA_MAX: usize = 64 << 10;

/// What an image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read. It takes no lock, and nobody notices.
    ReadOnly,
    /// To read and write. The lock is taken with the first write.
    ReadWrite,
}

/// An image that is open. Clones are the same opening, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Image(pub(crate) Arc<Handle>);

#[derive(Debug)]
pub(crate) struct Handle {
    raw: sys::rbd_image_t,
    pool: Pool,
    place: String,
    /// Who waits for the end.
    closed: Mutex<Option<oneshot::Sender<()>>>,
}

// SAFETY: librbd says of `rbd_image_t` that its calls may come from any thread and several at a time; it is closed by
// the last owner only.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // Closing flushes and waits, and the last owner may be on a thread of the library itself.
        let (raw, pool) = (Closing(self.raw), self.pool.clone());
        let closed = self.closed.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let_go(move || {
            raw.close();
            if let Some(closed) = closed {
                // Nobody may wait any more.
                let _ = closed.send(());
            }
            drop(pool);
        });
    }
}

struct Closing(sys::rbd_image_t);

// SAFETY: it is moved, and nobody else has it any more.
unsafe impl Send for Closing {}

impl Closing {
    fn close(self) {
        // SAFETY: it was made by `rbd_open` or one of its like, and its only owner ends it here.
        unsafe { sys::rbd_close(self.0) };
    }
}

impl Image {
    pub(crate) async fn open(pool: Pool, name: &str, access: Access) -> Result<Self, RbdError> {
        let place = pool.place_of(name);
        let shown = place.clone();
        let threads = pool.0.cluster.0.threads.clone();
        let limit = pool.0.cluster.0.limit;
        let name = name.to_owned();
        let handle = threads.run("open", &shown, limit, move || {
            let name = to_c(&name)?;
            let mut raw: sys::rbd_image_t = ptr::null_mut();
            let open = match access {
                Access::ReadOnly => sys::rbd_open_read_only,
                Access::ReadWrite => sys::rbd_open,
            };
            // SAFETY: the pool's handle lives, the name ends with a NUL, and the pointer is where the handle is put; no
            // snapshot is named.
            check(unsafe { open(pool.0.raw, name.as_ptr(), &raw mut raw, ptr::null()) })?;
            Ok(Handle { raw, pool, place, closed: Mutex::default() })
        });
        Ok(Self(Arc::new(handle.await?)))
    }

    /// Makes a call that waits, with no longer a wait than the client's limit.
    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Handle) -> Result<T, i32> + Send + 'static,
    ) -> Result<T, RbdError> {
        let limit = self.0.pool.0.cluster.0.limit;
        self.call_within(operation, limit, call).await
    }

    async fn call_within<T: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Option<Duration>,
        call: impl FnOnce(&Handle) -> Result<T, i32> + Send + 'static,
    ) -> Result<T, RbdError> {
        let handle = Arc::clone(&self.0);
        let threads = &self.0.pool.0.cluster.0.threads;
        threads.run(operation, &self.0.place, limit, move || call(&handle)).await
    }

    /// What its objects are named by.
    ///
    /// # Errors
    /// When the library cannot tell.
    pub async fn id(&self) -> Result<String, RbdError> {
        self.call("ask for the id of", |handle| {
            let mut id = vec![0_u8; ID_SIZE];
            // SAFETY: the image is open, and the buffer has the length that is told.
            check(unsafe { sys::rbd_get_id(handle.raw, id.as_mut_ptr().cast::<c_char>(), id.len()) })?;
            // SAFETY: the library put a text with a NUL into the buffer, which lives.
            Ok(unsafe { from_c(id.as_ptr().cast::<c_char>()) })
        })
        .await
    }

    /// Its size, in bytes.
    ///
    /// # Errors
    /// When the library cannot tell.
    pub async fn size(&self) -> Result<u64, RbdError> {
        self.call("ask for the size of", |handle| {
            let mut size = 0;
            // SAFETY: the image is open, and the pointer is where the size is put.
            check(unsafe { sys::rbd_get_size(handle.raw, &raw mut size) })?;
            Ok(size)
        })
        .await
    }

    /// When it was last written to, as far as whoever wrote noted that: once a minute, unless it is told otherwise.
    ///
    /// # Errors
    /// When the library cannot tell.
    pub async fn modified_at(&self) -> Result<Timestamp, RbdError> {
        self.call("ask when somebody wrote to", |handle| {
            let mut time = sys::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the image is open, and the pointer is where the time is put.
            check(unsafe { sys::rbd_get_modify_timestamp(handle.raw, &raw mut time) })?;
            Ok(Timestamp::from_micros(time.tv_sec.saturating_mul(1_000_000) + time.tv_nsec / 1000))
        })
        .await
    }

    /// Gives it another size, in bytes. What a smaller one leaves out is gone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn resize(&self, size: u64, progress: Progress) -> Result<(), RbdError> {
        self.call_within("resize", None, move |handle| {
            with_progress(progress, |callback, argument| {
                // SAFETY: the image is open, and the callback is called while this call lasts.
                unsafe { sys::rbd_resize2(handle.raw, size, true, callback, argument) }
            })
        })
        .await
    }

    /// Gives it an object map and what goes with it, or takes that away.
    ///
    /// # Errors
    /// When it cannot be written, or is so already.
    pub async fn object_map_enable(&self, enabled: bool) -> Result<(), RbdError> {
        self.call_within("change the features of", None, move |handle| {
            let features = u64::from(sys::RBD_FEATURE_OBJECT_MAP | sys::RBD_FEATURE_FAST_DIFF);
            // SAFETY: the image is open.
            check(unsafe { sys::rbd_update_features(handle.raw, features, u8::from(enabled)) }).map(drop)
        })
        .await
    }

    /// Whether it has an object map, and whether that is used: a new one is not, until it was rebuilt.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn object_map(&self) -> Result<(bool, bool), RbdError> {
        self.call("look at the features of", |handle| {
            let (mut features, mut flags) = (0, 0);
            // SAFETY: the image is open, and the pointer is where the answer is put.
            check(unsafe { sys::rbd_get_features(handle.raw, &raw mut features) })?;
            // SAFETY: as above.
            check(unsafe { sys::rbd_get_flags(handle.raw, &raw mut flags) })?;
            let has = features & u64::from(sys::RBD_FEATURE_OBJECT_MAP) != 0;
            Ok((has, has && flags & OBJECT_MAP_INVALID == 0))
        })
        .await
    }

    /// Looks which of its objects are there, and notes that in its object map. What the map says is there and is not, it leaves:
    /// somebody might just be making it.
    ///
    /// # Errors
    /// When it cannot be written, or was told to stop.
    pub async fn object_map_rebuild(&self, progress: Progress) -> Result<(), RbdError> {
        self.call_within("rebuild the object map of", None, move |handle| {
            with_progress(progress, |callback, argument| {
                // SAFETY: the image is open, and the callback is called while this call lasts.
                unsafe { sys::rbd_rebuild_object_map(handle.raw, callback, argument) }
            })
        })
        .await
    }

    /// Copies what it shares with its parent, so that it needs it no more. What its object map says is there is left out: after
    /// a client was killed that may be more than there is, and is lost then: let it have none meanwhile.
    ///
    /// # Errors
    /// When it has no parent, cannot be written, or was told to stop.
    pub async fn flatten(&self, progress: Progress) -> Result<(), RbdError> {
        self.call_within("flatten", None, |handle| {
            with_progress(progress, |callback, argument| {
                // SAFETY: the image is open, and the callback is called while this call lasts.
                unsafe { sys::rbd_flatten_with_progress(handle.raw, callback, argument) }
            })
        })
        .await
    }

    /// What was noted of it under a key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn metadata(&self, key: &str) -> Result<Option<String>, RbdError> {
        let key = key.to_owned();
        let got = self.call("read metadata of", move |handle| {
            let key = to_c(&key)?;
            let mut size = 256;
            loop {
                let mut value = vec![0_u8; size];
                // SAFETY: the image is open, the key ends with a NUL, and the buffer has the length that is told.
                let got = unsafe {
                    sys::rbd_metadata_get(
                        handle.raw,
                        key.as_ptr(),
                        value.as_mut_ptr().cast::<c_char>(),
                        &raw mut size,
                    )
                };
                match got {
                    ERANGE if size <= METADATA_MAX => {}
                    got => {
                        check(got)?;
                        value.push(0);
                        // SAFETY: there is a NUL at the end, and the buffer lives.
                        return Ok(unsafe { from_c(value.as_ptr().cast::<c_char>()) });
                    }
                }
            }
        });
        match got.await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes something of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn metadata_set(&self, key: &str, value: &str) -> Result<(), RbdError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.call("write metadata of", move |handle| {
            let (key, value) = (to_c(&key)?, to_c(&value)?);
            // SAFETY: the image is open, and both texts end with a NUL.
            check(unsafe { sys::rbd_metadata_set(handle.raw, key.as_ptr(), value.as_ptr()) }).map(drop)
        })
        .await
    }

    /// Ends this opening, and waits until the last owner is gone, what was written is safe, and the lock is given back.
    ///
    /// # Errors
    /// When what was written is not safe, or somebody else still has the image after the client's limit.
    pub async fn close(self) -> Result<(), RbdError> {
        let flushed = self.flush().await;
        let (sender, closed) = oneshot::channel();
        *self.0.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let (place, limit) = (self.0.place.clone(), self.0.pool.0.cluster.0.limit);
        drop(self);
        let ended = match limit {
            None => closed.await.is_ok(),
            Some(limit) => tokio::time::timeout(limit, closed).await.is_ok(),
        };
        if ended { flushed } else { Err(RbdError::timed_out("close", place)) }
    }
}
