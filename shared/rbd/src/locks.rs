//! The exclusive lock of an image, looked at and taken away without opening it; and locks of our own, for what only one process
//! may do at a time.

use std::ffi::CStr;
use std::os::raw::c_char;
use std::time::Duration;

use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::{Handle, Pool};
use crate::sys;
use crate::text::{all_texts, to_c};

/// The lock that librbd takes on the header of an image.
const LOCK: &str = "rbd_lock";
/// The name of ours, which is on objects of ours.
const GUARD: &str = "bmi";
/// "Or renew it, when it is mine" (`LIBRADOS_LOCK_FLAG_MAY_RENEW`).
const MAY_RENEW: u8 = 1;
/// `EIO`
const EIO: i32 = 5;
/// `EBUSY`
const EBUSY: i32 = 16;
/// Room for the texts of owners, in bytes: an exclusive lock has one.
const TEXTS: usize = 64 << 10;

/// Who holds an image's exclusive lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockOwner {
    /// Its address, as a blocklist has it: `ip:port/nonce`.
    pub address: String,
    /// What its image's objects are named by.
    pub image: String,
    client: String,
    cookie: String,
}

/// As a blocklist has it, without the version of the protocol: `v1:10.0.0.1:0/7` is `10.0.0.1:0/7`.
fn without_version(address: &str) -> String {
    let known = ["v1:", "v2:", "any:"].iter().find_map(|version| address.strip_prefix(version));
    known.unwrap_or(address).to_owned()
}

fn header(id: &str) -> String {
    format!("rbd_header.{id}")
}

/// Who has a lock, as `rados_list_lockers` tells it.
struct Locker {
    client: String,
    cookie: String,
    address: String,
}

/// Who has a lock on an object.
fn lockers(handle: &Handle, object: &CStr, lock: &str) -> Result<Vec<Locker>, i32> {
    let lock = to_c(lock)?;
    let mut exclusive = 0;
    let (mut tag, mut clients) = (vec![0_u8; TEXTS], vec![0_u8; TEXTS]);
    let (mut cookies, mut addresses) = (vec![0_u8; TEXTS], vec![0_u8; TEXTS]);
    let (mut tag_size, mut clients_size) = (tag.len(), clients.len());
    let (mut cookies_size, mut addresses_size) = (cookies.len(), addresses.len());
    // SAFETY: the handle lives, both names end with a NUL, and each buffer has the length that is told.
    let found = unsafe {
        sys::rados_list_lockers(
            handle.raw,
            object.as_ptr(),
            lock.as_ptr(),
            &raw mut exclusive,
            tag.as_mut_ptr().cast::<c_char>(),
            &raw mut tag_size,
            clients.as_mut_ptr().cast::<c_char>(),
            &raw mut clients_size,
            cookies.as_mut_ptr().cast::<c_char>(),
            &raw mut cookies_size,
            addresses.as_mut_ptr().cast::<c_char>(),
            &raw mut addresses_size,
        )
    };
    let found = i32::try_from(found).unwrap_or(i32::MIN);
    let count = usize::try_from(check(found)?).unwrap_or(0);
    // A cookie may be empty, and every owner counts: who is not seen here is not fenced.
    let texts = |buffer: &[u8]| all_texts(buffer, count).ok_or(-EIO);
    let lockers = texts(&clients)?.into_iter().zip(texts(&cookies)?).zip(texts(&addresses)?);
    Ok(lockers.map(|((client, cookie), address)| Locker { client, cookie, address }).collect())
}

impl Pool {
    /// Who holds the exclusive lock of the image with an id.
    ///
    /// # Errors
    /// When there is no such image, or its header cannot be read.
    pub async fn lock_owners(&self, id: &str) -> Result<Vec<LockOwner>, RbdError> {
        let image = id.to_owned();
        self.call("ask for the lock of", id, move |handle, id| {
            let header = to_c(&header(&id.to_string_lossy()))?;
            let owners = lockers(handle, &header, LOCK)?;
            let owner = |Locker { client, cookie, address }| LockOwner {
                address: without_version(&address),
                image: image.clone(),
                client,
                cookie,
            };
            Ok(owners.into_iter().map(owner).collect())
        })
        .await
    }

    /// Takes the exclusive lock away from somebody. It should be fenced before: what it was writing may still arrive.
    ///
    /// # Errors
    /// When that is not who holds it.
    pub async fn lock_break(&self, owner: &LockOwner) -> Result<(), RbdError> {
        let owner = owner.clone();
        self.call("break the lock of", &owner.image.clone(), move |handle, id| {
            let (header, lock) = (to_c(&header(&id.to_string_lossy()))?, to_c(LOCK)?);
            let (client, cookie) = (to_c(&owner.client)?, to_c(&owner.cookie)?);
            // SAFETY: the handle lives, and all texts end with a NUL.
            check(unsafe {
                sys::rados_break_lock(
                    handle.raw,
                    header.as_ptr(),
                    lock.as_ptr(),
                    client.as_ptr(),
                    cookie.as_ptr(),
                )
            })
            .map(drop)
        })
        .await
    }

    /// Takes a lock of our own on an object, which is made for it, or renews it: whoever has the same `cookie` in this process has
    /// it. It ends by itself after that time, in whole seconds and at least one, or never. Gives whether it was had.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub async fn guard_take(
        &self,
        object: &str,
        cookie: &str,
        time: Option<Duration>,
    ) -> Result<bool, RbdError> {
        let cookie = cookie.to_owned();
        let taken = self.call("take the lock", object, move |handle, object| {
            let (name, cookie, nothing) = (to_c(GUARD)?, to_c(&cookie)?, to_c("")?);
            // None at all is for ever.
            let seconds = time.map_or(0, |time| time.as_secs().max(1));
            let tv_sec = i64::try_from(seconds).unwrap_or(i64::MAX);
            let mut duration = sys::timeval { tv_sec, tv_usec: 0 };
            // SAFETY: the handle lives, all texts end with a NUL, and the time is read while this call lasts.
            check(unsafe {
                sys::rados_lock_exclusive(
                    handle.raw,
                    object.as_ptr(),
                    name.as_ptr(),
                    cookie.as_ptr(),
                    nothing.as_ptr(),
                    &raw mut duration,
                    MAY_RENEW,
                )
            })
            .map(drop)
        });
        match taken.await {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == EBUSY => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The cookie of whoever has a lock of our own on an object. None when nobody has, or there is no such object.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn guard_holder(&self, object: &str) -> Result<Option<String>, RbdError> {
        let asked = self.call("ask for the lock", object, |handle, object| lockers(handle, &object, GUARD));
        match asked.await {
            Ok(lockers) => Ok(lockers.into_iter().next().map(|locker| locker.cookie)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a lock of our own back.
    ///
    /// # Errors
    /// When it is not had.
    pub async fn guard_release(&self, object: &str, cookie: &str) -> Result<(), RbdError> {
        let cookie = cookie.to_owned();
        self.call("give back the lock", object, move |handle, object| {
            let (name, cookie) = (to_c(GUARD)?, to_c(&cookie)?);
            // SAFETY: the handle lives, and all texts end with a NUL.
            check(unsafe { sys::rados_unlock(handle.raw, object.as_ptr(), name.as_ptr(), cookie.as_ptr()) })
                .map(drop)
        })
        .await
    }
}
