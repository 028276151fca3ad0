//! Wakes tasks that wait for a change of the database, so that they need not poll it quickly.
//!
//! Only a hint: whoever waits also looks again after a while, since another replica may have made the change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How often a waiter looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One kind of change.
#[derive(Debug)]
pub struct Bell {
    rung: watch::Sender<()>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { rung: watch::channel(()).0 }
    }
}

impl Bell {
    /// Wakes all who listen.
    pub fn ring(&self) {
        self.rung.send_replace(());
    }

    /// Begins to listen. What rings from now on is not missed.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener { rung: self.rung.subscribe() }
    }
}

/// Listens to a bell.
#[derive(Debug)]
pub struct Listener {
    rung: watch::Receiver<()>,
}

impl Listener {
    /// Waits until the bell rings, at most [`LOOK_AGAIN`].
    pub async fn wait(&mut self) {
        tokio::time::timeout(LOOK_AGAIN, self.rung.changed()).await.ok();
    }
}

/// Says once that the server stops.
#[derive(Debug)]
pub struct Stopping {
    said: watch::Sender<bool>,
}

impl Default for Stopping {
    fn default() -> Self {
        Self { said: watch::channel(false).0 }
    }
}

impl Stopping {
    /// Says it.
    pub fn say(&self) {
        self.said.send_replace(true);
    }

    /// Waits until it was said.
    pub async fn wait(&self) {
        self.said.subscribe().wait_for(|said| *said).await.ok();
    }
}

/// The bells.
#[derive(Debug, Default)]
pub struct Wake {
    /// An operation was made or is due.
    pub operations: Bell,
    /// A network's desired state changed.
    pub desired: Arc<Bell>,
    /// An agent reported.
    pub reported: Bell,
    /// The server stops: streams end.
    pub stopping: Stopping,
}
