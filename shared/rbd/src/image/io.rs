//! Reading and writing: begun on the caller's thread, done on the library's.
//!
//! What is read into or written from belongs to the request until the library is done, and so does the image: whoever
//! loses interest meanwhile takes nothing away from it.

use std::os::raw::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Handle, Image};
use crate::cluster::check;
use crate::error::RbdError;
use crate::sys;

/// A request under way.
struct Pending {
    done: oneshot::Sender<(isize, Data)>,
    data: Data,
    /// Kept open until the end.
    _image: Arc<Handle>,
}

/// The bytes of a request.
enum Data {
    None,
    Read(Vec<u8>),
    Written(Bytes),
}

/// Where the bytes of a request are, and how many; null and none for a request without.
type Buffer = (*mut c_char, usize);

impl Data {
    /// They stay there when this is moved: it owns them elsewhere.
    fn buffer(&mut self) -> Buffer {
        match self {
            Self::None => (ptr::null_mut(), 0),
            Self::Read(bytes) => (bytes.as_mut_ptr().cast::<c_char>(), bytes.len()),
            // Nobody writes there: requests that have these only read them.
            Self::Written(bytes) => (bytes.as_ptr().cast::<c_char>().cast_mut(), bytes.len()),
        }
    }
}

/// Called by the library, once for each request that was begun.
unsafe extern "C" fn completed(completion: sys::rbd_completion_t, argument: *mut c_void) {
    // SAFETY: the completion is this call's until it is released.
    let returned = unsafe { sys::rbd_aio_get_return_value(completion) };
    // SAFETY: it was made for this request, and is used no more.
    unsafe { sys::rbd_aio_release(completion) };
    // SAFETY: `begin` gave this box away, and the library gives it back here once.
    let pending = unsafe { Box::from_raw(argument.cast::<Pending>()) };
    let Pending { done, data, _image } = *pending;
    // Nobody may wait any more.
    let _ = done.send((returned, data));
}

impl Image {
    /// Reads bytes; what was never written is zero.
    ///
    /// # Errors
    /// When they are not all within the image, or cannot be read.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, RbdError> {
        let buffer = Data::Read(vec![0; length]);
        let (returned, data) = self
            .request("read", buffer, |raw, (at, length), completion| {
                // SAFETY: the image is open, there is room for as many bytes as is told, and the request has
                // both until it is done.
                unsafe { sys::rbd_aio_read2(raw, offset, length, at, completion, 0) }
            })
            .await?;
        match data {
            // Beyond the end there is less to read.
            Data::Read(buffer) if usize::try_from(returned) == Ok(buffer.len()) => Ok(buffer),
            _ => Err(self.fault("read", -einval())),
        }
    }

    /// Writes bytes. They are safe once a later flush is done.
    ///
    /// # Errors
    /// When they are not all within the image, or cannot be written.
    pub async fn write(&self, offset: u64, bytes: Bytes) -> Result<(), RbdError> {
        self.request("write", Data::Written(bytes), |raw, (at, length), completion| {
            // SAFETY: the image is open, there are as many bytes as is told, nobody changes them, and the
            // request has both until it is done.
            unsafe { sys::rbd_aio_write2(raw, offset, length, at, completion, 0) }
        })
        .await
        .map(drop)
    }

    /// Makes a range read as zero, and gives back what it takes where that can be done by whole objects; the rest is
    /// written.
    ///
    /// # Errors
    /// When it is not all within the image, or cannot be written.
    pub async fn write_zeroes(&self, offset: u64, length: usize) -> Result<(), RbdError> {
        self.request("write zeroes to", Data::None, |raw, _, completion| {
            // SAFETY: the image is open; no buffer is involved.
            unsafe { sys::rbd_aio_write_zeroes(raw, offset, length, completion, 0, 0) }
        })
        .await
        .map(drop)
    }

    /// Gives back what a range takes. What it reads as afterwards is not said.
    ///
    /// # Errors
    /// When it is not all within the image, or cannot be written.
    pub async fn discard(&self, offset: u64, length: u64) -> Result<(), RbdError> {
        self.request("discard of", Data::None, |raw, _, completion| {
            // SAFETY: the image is open; no buffer is involved.
            unsafe { sys::rbd_aio_discard(raw, offset, length, completion) }
        })
        .await
        .map(drop)
    }

    /// Waits until everything that was written before is safe.
    ///
    /// # Errors
    /// When some of it is not.
    pub async fn flush(&self) -> Result<(), RbdError> {
        self.request("flush", Data::None, |raw, _, completion| {
            // SAFETY: the image is open; no buffer is involved.
            unsafe { sys::rbd_aio_flush(raw, completion) }
        })
        .await
        .map(drop)
    }

    fn fault(&self, operation: &'static str, errno: i32) -> RbdError {
        RbdError::new(operation, self.0.place.clone(), errno)
    }

    /// Begins a request and waits for it; not sent to a thread, since beginning does not wait.
    async fn request(
        &self,
        operation: &'static str,
        data: Data,
        begin: impl FnOnce(sys::rbd_image_t, Buffer, sys::rbd_completion_t) -> c_int,
    ) -> Result<(isize, Data), RbdError> {
        let result = self.begin(data, begin).map_err(|errno| self.fault(operation, errno))?;
        let (returned, data) = result.await.map_err(|_| self.fault(operation, -einval()))?;
        if returned < 0 {
            return Err(self.fault(operation, i32::try_from(returned).unwrap_or(-einval())));
        }
        Ok((returned, data))
    }

    fn begin(
        &self,
        mut data: Data,
        begin: impl FnOnce(sys::rbd_image_t, Buffer, sys::rbd_completion_t) -> c_int,
    ) -> Result<oneshot::Receiver<(isize, Data)>, i32> {
        let (done, result) = oneshot::channel();
        // Once it has begun, another thread may be done with it and free it at any time: nothing of it is
        // looked at then.
        let buffer = data.buffer();
        let pending = Box::into_raw(Box::new(Pending { done, data, _image: Arc::clone(&self.0) }));
        let mut completion: sys::rbd_completion_t = ptr::null_mut();
        // SAFETY: the box is given away until `completed` takes it; the pointer is where the completion is put.
        let made = unsafe {
            sys::rbd_aio_create_completion(pending.cast::<c_void>(), Some(completed), &raw mut completion)
        };
        if let Err(errno) = check(made) {
            // SAFETY: the library did not take the box.
            drop(unsafe { Box::from_raw(pending) });
            return Err(errno);
        }
        let begun = begin(self.0.raw, buffer, completion);
        if let Err(errno) = check(begun) {
            // SAFETY: the library does not call `completed` for what it did not begin, so that the completion
            // and the box are still ours; the completion is used no more.
            unsafe { sys::rbd_aio_release(completion) };
            // SAFETY: as above: the box is ours again.
            drop(unsafe { Box::from_raw(pending) });
            return Err(errno);
        }
        Ok(result)
    }
}

/// `EINVAL`.
const fn einval() -> i32 {
    22
}
