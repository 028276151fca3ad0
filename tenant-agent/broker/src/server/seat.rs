//! The one place for a connection at an export.

use std::cell::{Cell, RefCell};

use tokio::sync::{Mutex, MutexGuard, oneshot};

/// Who sits there, and who wants to.
#[derive(Debug, Default)]
pub struct Seat {
    taken: Mutex<()>,
    /// Of whoever came last. Dropping it asks it to go.
    last: RefCell<Option<oneshot::Sender<()>>>,
    closed: Cell<bool>,
}

/// Hears that a newcomer is there.
pub type Leave = oneshot::Receiver<()>;

impl Seat {
    /// Asks whoever sits there to go, and waits until it has. Nothing when another newcomer came meanwhile.
    pub async fn take(&self) -> Option<(MutexGuard<'_, ()>, Leave)> {
        if self.closed.get() {
            return None;
        }
        let (keep, mut leave) = oneshot::channel();
        self.last.replace(Some(keep));
        tokio::select! {
            biased;
            _ = &mut leave => None,
            guard = self.taken.lock() => Some((guard, leave)),
        }
    }

    /// Asks whoever sits there to go, and lets nobody in any more.
    pub fn close(&self) {
        self.closed.set(true);
        self.last.replace(None);
    }
}
