//! One client of a cluster.

use std::os::raw::c_char;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::RbdError;
use crate::pool::Pool;
use crate::settings::Settings;
use crate::sys;
use crate::text::{from_c, to_c};
use crate::threads::{Threads, let_go};

/// How much longer than the library itself anybody waits for it.
const GRACE: Duration = Duration::from_secs(5);
/// The longest value of an option that is asked for, in bytes.
const OPTION_MAX: usize = 4096;
/// A text of a UUID with its NUL, in bytes.
const FSID_SIZE: usize = 37;

/// A client that is connected. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Cluster(pub(crate) Arc<Handle>);

/// The library's handle.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) raw: sys::rados_t,
    pub(crate) threads: Threads,
    user: String,
    /// How long anybody waits for a call that has no progress to tell.
    pub(crate) limit: Option<Duration>,
}

// SAFETY: librados says of `rados_t` that its calls may come from any thread and several at a time (`librados.h`,
// "Thread safety"); it is shut down by the last owner only.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        let raw = Shut(self.raw);
        let_go(move || raw.shutdown());
    }
}

/// A handle that is about to be shut down, on its way to the thread that does it.
struct Shut(sys::rados_t);

// SAFETY: it is moved, and nobody else has it any more.
unsafe impl Send for Shut {}

impl Shut {
    fn shutdown(self) {
        // SAFETY: the handle was made by `rados_create2`, and its only owner ends it here.
        unsafe { sys::rados_shutdown(self.0) };
    }
}

impl Cluster {
    /// Connects.
    ///
    /// # Errors
    /// When an option is unknown, no monitor answers in time, or the user is not who it says.
    pub async fn connect(settings: Settings) -> Result<Self, RbdError> {
        crate::exit::without_destructors();
        let threads = Threads::new();
        let place = format!("client.{}", settings.user);
        let limit = settings.timeouts.connect + GRACE;
        let (user, runner) = (settings.user.clone(), threads.clone());
        let longest = settings.timeouts.osd.max(settings.timeouts.monitor);
        let handle = runner
            .run("connect as", &place, Some(limit), move || {
                let handle = Handle {
                    raw: create(&settings.user)?,
                    threads,
                    user,
                    limit: longest.map(|longest| longest + GRACE),
                };
                if let Some(conf) = &settings.conf {
                    read_file(&handle, conf)?;
                }
                for (name, value) in settings.options() {
                    set(&handle, &name, &value)?;
                }
                // SAFETY: the handle is whole, configured and not connected yet.
                check(unsafe { sys::rados_connect(handle.raw) })?;
                Ok(handle)
            })
            .await?;
        Ok(Self(Arc::new(handle)))
    }

    /// One namespace of a pool; the empty name is the default one. Neither is looked at before it is used.
    ///
    /// # Errors
    /// When there is no such pool.
    pub async fn pool(&self, pool: &str, namespace: &str) -> Result<Pool, RbdError> {
        Pool::open(self.clone(), pool, namespace).await
    }

    /// The user, without `client.`.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// Waits until this client has the newest map of the OSDs. An OSD that it asks for something after that
    /// does nothing for whoever that map has on the blocklist any more: it gets the map first.
    ///
    /// # Errors
    /// When the monitors do not answer in time.
    pub async fn osd_map_wait(&self) -> Result<(), RbdError> {
        let (handle, place) = (Arc::clone(&self.0), format!("client.{}", self.user()));
        let waited = self.0.threads.run("wait for the map of the OSDs as", &place, self.0.limit, move || {
            // SAFETY: the client is connected, and the handle lives while this call lasts.
            check(unsafe { sys::rados_wait_for_latest_osdmap(handle.raw) }).map(drop)
        });
        waited.await
    }

    /// An option's value, such as `mon_host`.
    ///
    /// # Errors
    /// When there is no such option.
    pub fn option(&self, name: &str) -> Result<String, RbdError> {
        let fault = |errno| RbdError::new("read the option", name, errno);
        let name = to_c(name).map_err(fault)?;
        let mut value = vec![0_u8; OPTION_MAX];
        // SAFETY: the handle lives, the name ends with a NUL, and the buffer has the length that is told.
        let got = unsafe {
            sys::rados_conf_get(self.0.raw, name.as_ptr(), value.as_mut_ptr().cast::<c_char>(), value.len())
        };
        check(got).map_err(fault)?;
        Ok(first_text(&value))
    }

    /// The cluster's own id.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn fsid(&self) -> Result<String, RbdError> {
        let mut value = vec![0_u8; FSID_SIZE];
        // SAFETY: the handle lives, and the buffer has the length that is told.
        let got =
            unsafe { sys::rados_cluster_fsid(self.0.raw, value.as_mut_ptr().cast::<c_char>(), value.len()) };
        check(got).map_err(|errno| RbdError::new("ask for the cluster's id as", self.user(), errno))?;
        Ok(first_text(&value))
    }

    /// The addresses that the cluster knows this client by, as a blocklist has them: `ip:port/nonce`.
    ///
    /// # Errors
    /// When they cannot be told.
    pub fn addresses(&self) -> Result<String, RbdError> {
        let mut text: *mut c_char = ptr::null_mut();
        // SAFETY: the handle lives, and the pointer is where the library puts a text of its own.
        let got = unsafe { sys::rados_getaddrs(self.0.raw, &raw mut text) };
        check(got).map_err(|errno| RbdError::new("ask for the addresses of", self.user(), errno))?;
        // SAFETY: the library gave a text that is ours until it is freed.
        let addresses = unsafe { from_c(text) };
        // SAFETY: it was given by the library for this, and is used no more.
        unsafe { sys::rados_buffer_free(text) };
        Ok(addresses)
    }
}

/// Zero or more is done; less is a negative `errno`.
pub(crate) const fn check(returned: std::os::raw::c_int) -> Result<std::os::raw::c_int, i32> {
    if returned < 0 { Err(returned) } else { Ok(returned) }
}

fn first_text(buffer: &[u8]) -> String {
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn create(user: &str) -> Result<sys::rados_t, i32> {
    let (cluster, name) = (to_c("ceph")?, to_c(&format!("client.{user}"))?);
    let mut raw: sys::rados_t = ptr::null_mut();
    // SAFETY: both names end with a NUL, and the pointer is where the library puts its handle.
    check(unsafe { sys::rados_create2(&raw mut raw, cluster.as_ptr(), name.as_ptr(), 0) })?;
    Ok(raw)
}

fn read_file(handle: &Handle, conf: &Path) -> Result<(), i32> {
    let path = to_c(&conf.to_string_lossy())?;
    // SAFETY: the handle is not connected yet, and the path ends with a NUL.
    check(unsafe { sys::rados_conf_read_file(handle.raw, path.as_ptr()) }).map(drop)
}

fn set(handle: &Handle, name: &str, value: &str) -> Result<(), i32> {
    let (name, value) = (to_c(name)?, to_c(value)?);
    // SAFETY: the handle is not connected yet, and both texts end with a NUL.
    check(unsafe { sys::rados_conf_set(handle.raw, name.as_ptr(), value.as_ptr()) }).map(drop)
}
