//! The exclusive lock of an image, looked at and taken away without opening it.

use std::os::raw::c_char;

use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::Pool;
use crate::sys;
use crate::text::{each_text, to_c};

/// The lock that librbd takes on the header of an image.
const LOCK: &str = "rbd_lock";
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

impl Pool {
    /// Who holds the exclusive lock of the image with an id.
    ///
    /// # Errors
    /// When there is no such image, or its header cannot be read.
    pub async fn lock_owners(&self, id: &str) -> Result<Vec<LockOwner>, RbdError> {
        let image = id.to_owned();
        self.call("ask for the lock of", id, move |handle, id| {
            let (header, lock) = (to_c(&header(&id.to_string_lossy()))?, to_c(LOCK)?);
            let mut exclusive = 0;
            let (mut tag, mut clients) = (vec![0_u8; TEXTS], vec![0_u8; TEXTS]);
            let (mut cookies, mut addresses) = (vec![0_u8; TEXTS], vec![0_u8; TEXTS]);
            let (mut tag_size, mut clients_size) = (tag.len(), clients.len());
            let (mut cookies_size, mut addresses_size) = (cookies.len(), addresses.len());
            // SAFETY: the handle lives, both names end with a NUL, and each buffer has the length that is told.
            let found = unsafe {
                sys::rados_list_lockers(
                    handle.raw,
                    header.as_ptr(),
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
            let texts = |buffer: &[u8]| each_text(buffer).into_iter().take(count);
            let owners = texts(&clients).zip(texts(&cookies)).zip(texts(&addresses));
            let owner = |((client, cookie), address): ((String, String), String)| LockOwner {
                address: without_version(&address),
                image: image.clone(),
                client,
                cookie,
            };
            Ok(owners.map(owner).collect())
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
}
