//! Doing something inside another network namespace.
//!
//! A thread of its own enters the namespace and ends there: no thread that does anything else is ever moved. What the
//! thread starts (`nft`) inherits the namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Runs `work` in a namespace and gives its result.
///
/// # Errors
/// When the namespace cannot be entered, or the thread ends without a result.
pub async fn within<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        let _ = done.send(entered.map(|()| work()).map_err(io::Error::from));
    })?;
    result.await.map_err(|_| io::Error::other("the thread in the namespace ended early"))?
}
