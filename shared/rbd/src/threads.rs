//! Threads for calls that wait in the library.
//!
//! They are not the runtime's: a call that never comes back holds one of them, and the program ends all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::error::RbdError;

/// Calls of one client that wait at the same time. More wait for their turn: an OSD does not answer faster for it.
const AT_ONCE: usize = 32;

/// The stack of such a thread, in bytes: librbd works on threads of its own and needs little here.
const STACK: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Makes a call, and waits for it for at most `limit`. It goes on after that, with what it holds.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        place: &str,
        limit: Option<Duration>,
        call: impl FnOnce() -> Result<T, i32> + Send + 'static,
    ) -> Result<T, RbdError> {
        let threads = self.clone();
        let work = async move {
            let turn =
                threads.0.acquire_owned().await.map_err(|error| std::io::Error::other(error.to_string()))?;
            let (done, result) = oneshot::channel();
            std::thread::Builder::new().name("rbd-call".to_owned()).stack_size(STACK).spawn(move || {
                let _ = done.send(call());
                drop(turn);
            })?;
            result.await.map_err(|_| std::io::Error::other("the call panicked"))
        };
        let done = match limit {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(done) => done,
                Err(_) => return Err(RbdError::timed_out(operation, place)),
            },
        };
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(errno)) => Err(RbdError::new(operation, place, errno)),
            Err(error) => Err(RbdError::other(operation, place, error)),
        }
    }
}

/// Lets go of something whose end waits in the library, on no thread of the runtime or the library.
pub(crate) fn let_go(work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new().name("rbd-close".to_owned()).stack_size(STACK).spawn(work);
    if let Err(error) = spawned {
        // Then it stays open until the program ends.
        tracing::warn!(%error, "a handle of Ceph cannot be closed");
    }
}
