//! One namespace of a pool, and the images in it.

use std::ffi::CString;
use std::os::raw::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use crate::Progress;
use crate::cluster::{Cluster, check};
use crate::error::RbdError;
use crate::image::{Access, Image};
use crate::sys;
use crate::text::{each_text, from_c, to_c};
use crate::threads::let_go;

/// `ERANGE`: the library wants a longer list.
pub(crate) const ERANGE: i32 = -34;
/// How many items a list is asked for at first.
const LIST: usize = 256;
/// The longest list of namespaces, in bytes of their names.
const NAMES_MAX: usize = 16 << 20;
/// The longest list of anything, in items.
const ITEMS_MAX: usize = 1 << 20;

/// Features of every image that is made here: snapshots and clones, one writer, quick sizes and comparisons, and clones
/// that leave their snapshots behind when they are flattened.
const FEATURES: u64 = (sys::RBD_FEATURE_LAYERING
    | sys::RBD_FEATURE_EXCLUSIVE_LOCK
    | sys::RBD_FEATURE_OBJECT_MAP
    | sys::RBD_FEATURE_FAST_DIFF
    | sys::RBD_FEATURE_DEEP_FLATTEN) as u64;

/// Clones that need no protected snapshot, and whose parent may be in another namespace.
const CLONE_FORMAT: u64 = 2;

/// A namespace of a pool. Clones are the same.
///
/// While the pool or the cluster is full, what needs room in it fails, and does not wait until there is some.
#[derive(Debug, Clone)]
pub struct Pool(pub(crate) Arc<Handle>);

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) raw: sys::rados_ioctx_t,
    pub(crate) cluster: Cluster,
    pub(crate) place: String,
    namespace: String,
}

// SAFETY: the namespace and the flags of later operations are set before anybody else has the handle, and the
// library only reads them; `librados.h` allows that from several threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // The last to go may be the client itself, whose end waits: so all of it goes to another thread.
        let (raw, cluster) = (Gone(self.raw), self.cluster.clone());
        let_go(move || {
            raw.destroy();
            drop(cluster);
        });
    }
}

struct Gone(sys::rados_ioctx_t);

// SAFETY: it is moved, and nobody else has it any more.
unsafe impl Send for Gone {}

impl Gone {
    fn destroy(self) {
        // SAFETY: it was made by `rados_ioctx_create`, and its only owner ends it here.
        unsafe { sys::rados_ioctx_destroy(self.0) };
    }
}

/// An image as its namespace lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What its objects are named by.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trashed {
    /// What its objects are named by.
    pub id: String,
    /// The name it had.
    pub name: String,
}

/// An image that was cloned from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its objects are named by.
    pub id: String,
    /// Whether it is in the trash.
    pub trashed: bool,
}

impl Pool {
    pub(crate) async fn open(cluster: Cluster, pool: &str, namespace: &str) -> Result<Self, RbdError> {
        let place = if namespace.is_empty() { pool.to_owned() } else { format!("{pool}/{namespace}") };
        let (threads, limit, shown) = (cluster.0.threads.clone(), cluster.0.limit, place.clone());
        let (name, namespace) = (pool.to_owned(), namespace.to_owned());
        let handle = threads.run("open", &shown, limit, move || {
            let (c_name, c_namespace) = (to_c(&name)?, to_c(&namespace)?);
            let mut raw: sys::rados_ioctx_t = ptr::null_mut();
            // SAFETY: the client is connected, the name ends with a NUL, and the pointer is where the handle is put.
            check(unsafe { sys::rados_ioctx_create(cluster.0.raw, c_name.as_ptr(), &raw mut raw) })?;
            let handle = Handle { raw, cluster, place, namespace };
            // SAFETY: the handle is whole and nobody else has it; the name ends with a NUL.
            unsafe { sys::rados_ioctx_set_namespace(handle.raw, c_namespace.as_ptr()) };
            // SAFETY: as above.
            unsafe { sys::rados_set_pool_full_try(handle.raw) };
            Ok(handle)
        });
        Ok(Self(Arc::new(handle.await?)))
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Makes a call that waits, with no longer a wait than the client's limit.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        call: impl FnOnce(&Handle, CString) -> Result<T, i32> + Send + 'static,
    ) -> Result<T, RbdError> {
        let limit = self.0.cluster.0.limit;
        self.call_within(operation, name, limit, call).await
    }

    async fn call_within<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        limit: Option<std::time::Duration>,
        call: impl FnOnce(&Handle, CString) -> Result<T, i32> + Send + 'static,
    ) -> Result<T, RbdError> {
        let place = self.place_of(name);
        let (handle, name) = (Arc::clone(&self.0), name.to_owned());
        let work = move || call(&handle, to_c(&name)?);
        self.0.cluster.0.threads.run(operation, &place, limit, work).await
    }

    pub(crate) fn place_of(&self, name: &str) -> String {
        if name.is_empty() { self.0.place.clone() } else { format!("{}/{name}", self.0.place) }
    }

    /// Opens an image.
    ///
    /// # Errors
    /// When there is none of that name, or the user may not.
    pub async fn image_open(&self, name: &str, access: Access) -> Result<Image, RbdError> {
        Image::open(self.clone(), name, access).await
    }

    /// Makes an empty image of a size in bytes.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn image_create(&self, name: &str, size: u64) -> Result<(), RbdError> {
        self.call("create", name, move |handle, name| {
            let options = Options::new(&[(sys::RBD_IMAGE_OPTION_FEATURES, FEATURES)])?;
            // SAFETY: all handles live, and the name ends with a NUL.
            check(unsafe { sys::rbd_create4(handle.raw, name.as_ptr(), size, options.0) }).map(drop)
        })
        .await
    }

    /// Makes an image that is a copy-on-write clone of a snapshot, which may be in another namespace.
    ///
    /// # Errors
    /// When there is no such snapshot, or an image of that name already.
    pub async fn image_clone(
        &self,
        parent: &Self,
        parent_name: &str,
        snapshot: &str,
        name: &str,
    ) -> Result<(), RbdError> {
        let (parent, parent_name, snapshot) =
            (Arc::clone(&parent.0), parent_name.to_owned(), snapshot.to_owned());
        self.call("clone into", name, move |handle, name| {
            let (parent_name, snapshot) = (to_c(&parent_name)?, to_c(&snapshot)?);
            let options = Options::new(&[
                (sys::RBD_IMAGE_OPTION_FEATURES, FEATURES),
                (sys::RBD_IMAGE_OPTION_CLONE_FORMAT, CLONE_FORMAT),
            ])?;
            // SAFETY: all handles live, and the names end with a NUL.
            let cloned = unsafe {
                sys::rbd_clone3(
                    parent.raw,
                    parent_name.as_ptr(),
                    snapshot.as_ptr(),
                    handle.raw,
                    name.as_ptr(),
                    options.0,
                )
            };
            check(cloned).map(drop)
        })
        .await
    }

    /// Gives an image another name in the same namespace. Who has it open keeps it.
    ///
    /// # Errors
    /// When there is none, or one of the new name.
    pub async fn image_rename(&self, from: &str, to: &str) -> Result<(), RbdError> {
        let to = to.to_owned();
        self.call("rename", from, move |handle, from| {
            let to = to_c(&to)?;
            // SAFETY: the handle lives, and both names end with a NUL.
            check(unsafe { sys::rbd_rename(handle.raw, from.as_ptr(), to.as_ptr()) }).map(drop)
        })
        .await
    }

    /// Every image.
    ///
    /// # Errors
    /// When the namespace cannot be read.
    pub async fn images(&self) -> Result<Vec<Entry>, RbdError> {
        self.call("list", "", |handle, _| {
            let empty = sys::rbd_image_spec_t { id: ptr::null_mut(), name: ptr::null_mut() };
            let list = listed(empty, |items, count| {
                // SAFETY: the handle lives, and there is room for as many items as is told.
                unsafe { sys::rbd_list2(handle.raw, items, count) }
            })?;
            let entry = |item: &sys::rbd_image_spec_t| Entry {
                // SAFETY: the library filled the item.
                id: unsafe { from_c(item.id) },
                // SAFETY: as above.
                name: unsafe { from_c(item.name) },
            };
            let entries = list.iter().map(entry).collect();
            let mut list = list;
            // SAFETY: the library filled these items and frees what it put there; they are used no more.
            unsafe { sys::rbd_image_spec_list_cleanup(list.as_mut_ptr(), list.len()) };
            Ok(entries)
        })
        .await
    }

    /// Moves an image into the trash: its name is free at once, its data are there until it is removed from it.
    ///
    /// # Errors
    /// When there is none, or somebody has it open.
    pub async fn trash_move(&self, name: &str) -> Result<(), RbdError> {
        self.call("move to the trash", name, |handle, name| {
            // SAFETY: the handle lives, and the name ends with a NUL.
            check(unsafe { sys::rbd_trash_move(handle.raw, name.as_ptr(), 0) }).map(drop)
        })
        .await
    }

    /// What is in the trash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn trash(&self) -> Result<Vec<Trashed>, RbdError> {
        self.call("list the trash of", "", |handle, _| {
            let empty = sys::rbd_trash_image_info_t {
                id: ptr::null_mut(),
                name: ptr::null_mut(),
                source: 0,
                deletion_time: 0,
                deferment_end_time: 0,
            };
            let mut list = listed(empty, |items, count| {
                // SAFETY: the handle lives, and there is room for as many items as is told.
                unsafe { sys::rbd_trash_list(handle.raw, items, count) }
            })?;
            let trashed = |item: &sys::rbd_trash_image_info_t| Trashed {
                // SAFETY: the library filled the item.
                id: unsafe { from_c(item.id) },
                // SAFETY: as above.
                name: unsafe { from_c(item.name) },
            };
            let found = list.iter().map(trashed).collect();
            // SAFETY: the library filled these items and frees what it put there; they are used no more.
            unsafe { sys::rbd_trash_list_cleanup(list.as_mut_ptr(), list.len()) };
            Ok(found)
        })
        .await
    }

    /// Removes an image from the trash, its data included: as long as its size.
    ///
    /// # Errors
    /// When there is none of that id, it has clones or snapshots, or somebody has it open.
    pub async fn trash_remove(&self, id: &str, progress: Progress) -> Result<(), RbdError> {
        self.call_within("remove from the trash", id, None, |handle, id| {
            with_progress(progress, |callback, argument| {
                // SAFETY: the handle lives, the id ends with a NUL, and the callback is called while this call lasts.
                unsafe {
                    sys::rbd_trash_remove_with_progress(handle.raw, id.as_ptr(), true, callback, argument)
                }
            })
        })
        .await
    }

    /// Every namespace of the pool. Asked of the pool's default namespace.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub async fn namespaces(&self) -> Result<Vec<String>, RbdError> {
        self.call("list the namespaces of", "", |handle, _| {
            let mut size = LIST * 64;
            loop {
                let mut buffer = vec![0_u8; size];
                // SAFETY: the handle lives, and the buffer has the length that is told.
                let got = unsafe {
                    sys::rbd_namespace_list(handle.raw, buffer.as_mut_ptr().cast::<c_char>(), &raw mut size)
                };
                match got {
                    ERANGE if size <= NAMES_MAX => {}
                    got => {
                        check(got)?;
                        buffer.truncate(size);
                        return Ok(each_text(&buffer));
                    }
                }
            }
        })
        .await
    }

    /// Makes a namespace in the pool. Asked of the pool's default namespace.
    ///
    /// # Errors
    /// When it is there already.
    pub async fn namespace_create(&self, namespace: &str) -> Result<(), RbdError> {
        self.call("create the namespace", namespace, |handle, namespace| {
            // SAFETY: the handle lives, and the name ends with a NUL.
            check(unsafe { sys::rbd_namespace_create(handle.raw, namespace.as_ptr()) }).map(drop)
        })
        .await
    }

    /// Removes an empty namespace from the pool. Asked of the pool's default namespace.
    ///
    /// # Errors
    /// When there is none, or something is in it, the trash included.
    pub async fn namespace_remove(&self, namespace: &str) -> Result<(), RbdError> {
        self.call("remove the namespace", namespace, |handle, namespace| {
            // SAFETY: the handle lives, and the name ends with a NUL.
            check(unsafe { sys::rbd_namespace_remove(handle.raw, namespace.as_ptr()) }).map(drop)
        })
        .await
    }
}

/// Asks for a list with more and more room, until all of it fits.
pub(crate) fn listed<T: Clone>(
    empty: T,
    mut ask: impl FnMut(*mut T, *mut usize) -> c_int,
) -> Result<Vec<T>, i32> {
    let mut room = LIST;
    loop {
        let mut items = vec![empty.clone(); room];
        let mut count = items.len();
        match ask(items.as_mut_ptr(), &raw mut count) {
            ERANGE if room < ITEMS_MAX => room = count.max(room * 2),
            got => {
                check(got)?;
                items.truncate(count);
                return Ok(items);
            }
        }
    }
}

/// Makes a call that tells how far it is, and stops it when it is told to.
pub(crate) fn with_progress(
    mut progress: Progress,
    call: impl FnOnce(sys::librbd_progress_fn_t, *mut c_void) -> c_int,
) -> Result<(), i32> {
    let argument: *mut Progress = &raw mut progress;
    check(call(Some(heard), argument.cast::<c_void>())).map(drop)
}

/// `ECANCELED`, which ends what is going on.
const CANCELLED: c_int = -125;

/// The library's callback of progress.
unsafe extern "C" fn heard(done: u64, total: u64, argument: *mut c_void) -> c_int {
    // SAFETY: the library gives back what `with_progress` gave it, which lives on that frame while the call lasts, and
    // calls from one thread at a time.
    let progress = unsafe { &mut *argument.cast::<Progress>() };
    // A panic must not pass through the library.
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| progress(done, total)));
    if said.unwrap_or(false) { 0 } else { CANCELLED }
}

/// Options of a new image.
struct Options(sys::rbd_image_options_t);

impl Options {
    fn new(options: &[(u32, u64)]) -> Result<Self, i32> {
        let mut raw: sys::rbd_image_options_t = ptr::null_mut();
        // SAFETY: the pointer is where the library puts its handle.
        unsafe { sys::rbd_image_options_create(&raw mut raw) };
        let made = Self(raw);
        for (option, value) in options {
            let option = c_int::try_from(*option).map_err(|_| ERANGE)?;
            // SAFETY: the handle lives until `made` goes.
            check(unsafe { sys::rbd_image_options_set_uint64(made.0, option, *value) })?;
        }
        Ok(made)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: it was made by `rbd_image_options_create`, and nobody else has it.
        unsafe { sys::rbd_image_options_destroy(self.0) };
    }
}
