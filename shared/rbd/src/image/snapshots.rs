//! Snapshots, and who was cloned from whom.

use std::os::raw::c_int;
use std::ptr;

use super::Image;
use crate::cluster::check;
use crate::error::RbdError;
use crate::pool::{Child, ERANGE, listed};
use crate::sys;
use crate::text::{from_c, to_c};

/// How many snapshots are asked for at first, and at most.
const SNAPSHOTS: c_int = 64;
const SNAPSHOTS_MAX: c_int = 65_536;

/// What an image was cloned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The namespace.
    pub namespace: String,
    /// The image's name.
    pub image: String,
    /// What its objects are named by.
    pub id: String,
    /// The snapshot.
    pub snapshot: String,
}

impl Image {
    /// Makes a snapshot.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn snapshot_create(&self, name: &str) -> Result<(), RbdError> {
        let name = name.to_owned();
        self.call("make a snapshot of", move |handle| {
            let name = to_c(&name)?;
            // SAFETY: the image is open, and the name ends with a NUL.
            check(unsafe { sys::rbd_snap_create(handle.raw, name.as_ptr()) }).map(drop)
        })
        .await
    }

    /// Removes a snapshot. With clones it stays in the snapshots' own trash until the last of them goes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn snapshot_remove(&self, name: &str) -> Result<(), RbdError> {
        let name = name.to_owned();
        self.call("remove a snapshot of", move |handle| {
            let name = to_c(&name)?;
            // SAFETY: the image is open, and the name ends with a NUL.
            check(unsafe { sys::rbd_snap_remove2(handle.raw, name.as_ptr(), 0, None, ptr::null_mut()) })
                .map(drop)
        })
        .await
    }

    /// Looks at the image as it was at a snapshot, from here on: nothing can be written then.
    ///
    /// # Errors
    /// When there is none.
    pub async fn snapshot_look_at(&self, name: &str) -> Result<(), RbdError> {
        let name = name.to_owned();
        self.call("look at a snapshot of", move |handle| {
            let name = to_c(&name)?;
            // SAFETY: the image is open, and the name ends with a NUL.
            check(unsafe { sys::rbd_snap_set(handle.raw, name.as_ptr()) }).map(drop)
        })
        .await
    }

    /// The number of a snapshot: another one of the same name, made later, has another.
    ///
    /// # Errors
    /// When there is none.
    pub async fn snapshot_id(&self, name: &str) -> Result<u64, RbdError> {
        let name = name.to_owned();
        self.call("ask for a snapshot of", move |handle| {
            let name = to_c(&name)?;
            let mut id = 0;
            // SAFETY: the image is open, the name ends with a NUL, and the pointer is where the number is put.
            check(unsafe { sys::rbd_snap_get_id(handle.raw, name.as_ptr(), &raw mut id) })?;
            Ok(id)
        })
        .await
    }

    /// The names of its snapshots; those in the snapshots' own trash, whose clones live, included.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn snapshots(&self) -> Result<Vec<String>, RbdError> {
        self.call("list the snapshots of", |handle| {
            let mut room = SNAPSHOTS;
            loop {
                let empty = sys::rbd_snap_info_t { id: 0, size: 0, name: ptr::null() };
                let mut items = vec![empty; usize::try_from(room).unwrap_or(0)];
                let mut count = room;
                // SAFETY: the image is open, and there is room for as many items as is told.
                let got = unsafe { sys::rbd_snap_list(handle.raw, items.as_mut_ptr(), &raw mut count) };
                if got == ERANGE && room < SNAPSHOTS_MAX {
                    room = count.max(room).saturating_mul(2);
                    continue;
                }
                let filled = usize::try_from(check(got)?).unwrap_or(0);
                // SAFETY: the library filled these items.
                let names = items.iter().take(filled).map(|item| unsafe { from_c(item.name) }).collect();
                if filled > 0 {
                    // SAFETY: the library frees what it put there; the list ends with an item that has no name.
                    unsafe { sys::rbd_snap_list_end(items.as_mut_ptr()) };
                }
                return Ok(names);
            }
        })
        .await
    }

    /// What it was cloned from.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn parent(&self) -> Result<Option<Parent>, RbdError> {
        let asked = self.call("ask for the parent of", |handle| {
            let mut image = sys::rbd_linked_image_spec_t {
                pool_id: 0,
                pool_name: ptr::null_mut(),
                pool_namespace: ptr::null_mut(),
                image_id: ptr::null_mut(),
                image_name: ptr::null_mut(),
                trash: false,
            };
            let mut snapshot = sys::rbd_snap_spec_t { id: 0, namespace_type: 0, name: ptr::null_mut() };
            // SAFETY: the image is open, and both pointers are where the library puts what it tells.
            check(unsafe { sys::rbd_get_parent(handle.raw, &raw mut image, &raw mut snapshot) })?;
            let parent = Parent {
                // SAFETY: the library filled the item.
                namespace: unsafe { from_c(image.pool_namespace) },
                // SAFETY: as above.
                image: unsafe { from_c(image.image_name) },
                // SAFETY: as above.
                id: unsafe { from_c(image.image_id) },
                // SAFETY: as above.
                snapshot: unsafe { from_c(snapshot.name) },
            };
            // SAFETY: the library frees what it put there, which is used no more.
            unsafe { sys::rbd_linked_image_spec_cleanup(&raw mut image) };
            // SAFETY: as above.
            unsafe { sys::rbd_snap_spec_cleanup(&raw mut snapshot) };
            Ok(parent)
        });
        match asked.await {
            Ok(parent) => Ok(Some(parent)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What was cloned from it, from whichever snapshot, those in the trash included.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn children(&self) -> Result<Vec<Child>, RbdError> {
        self.call("list the clones of", |handle| {
            let empty = sys::rbd_linked_image_spec_t {
                pool_id: 0,
                pool_name: ptr::null_mut(),
                pool_namespace: ptr::null_mut(),
                image_id: ptr::null_mut(),
                image_name: ptr::null_mut(),
                trash: false,
            };
            let mut list = listed(empty, |items, count| {
                // SAFETY: the image is open, and there is room for as many items as is told.
                unsafe { sys::rbd_list_children3(handle.raw, items, count) }
            })?;
            let child = |item: &sys::rbd_linked_image_spec_t| Child {
                // SAFETY: the library filled the item.
                namespace: unsafe { from_c(item.pool_namespace) },
                // SAFETY: as above.
                name: unsafe { from_c(item.image_name) },
                // SAFETY: as above.
                id: unsafe { from_c(item.image_id) },
                trashed: item.trash,
            };
            let children = list.iter().map(child).collect();
            // SAFETY: the library frees what it put there, which is used no more.
            unsafe { sys::rbd_linked_image_spec_list_cleanup(list.as_mut_ptr(), list.len()) };
            Ok(children)
        })
        .await
    }
}
