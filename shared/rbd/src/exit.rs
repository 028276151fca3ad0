//! The end of a process that has used the library.

use std::os::raw::{c_int, c_void};
use std::ptr;
use std::sync::Once;

unsafe extern "C" {
    // POSIX: no handler and no destructor is run.
    fn _exit(status: c_int) -> !;
    // glibc (`on_exit(3)`): like `atexit`, and told the status.
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

extern "C" fn leave(status: c_int, _argument: *mut c_void) {
    // SAFETY: it takes any status and touches no memory of ours.
    unsafe { _exit(status) }
}

/// Has the process end, when it does, without the destructors of the library's statics: they would run while its threads, and
/// calls of ours that nobody waits for any more, still use them, and crash. Handlers that were registered after this one, and
/// Rust's own end, come before it.
pub(crate) fn without_destructors() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handler lives as long as the process, and does not use its argument.
        let registered = unsafe { on_exit(leave, ptr::null_mut()) };
        if registered != 0 {
            tracing::warn!("no room to register what ends the process cleanly");
        }
    });
}
