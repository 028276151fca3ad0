//! Serves volumes to whoever may connect to the socket.
//!
//! One thread. Each connection is a task; what it asked for is under way together and answered in any order.
//!
//! Invariants: an export has one connection. A newcomer takes its place, and is let in when everything that the former
//! one began is over: a client that died and came back, or its successor, is never overtaken by what it sent before. So
//! `NBD_FLAG_CAN_MULTI_CONN` is not offered. When a volume is taken away, nothing more is answered and [`serve`] returns.

mod connection;
mod perform;
mod seat;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::protocol::handshake::Offer;
use crate::protocol::wire::transmission;
use crate::volume::Volume;
use connection::{Connection, End};
use seat::Seat;

/// Connections at once: one for each of two exports, their successors, and room for who only looks. Who comes beyond
/// waits in the kernel's queue, which is as short.
const CONNECTIONS_MAX: usize = 8;

/// The pause after accepting has failed: there is no descriptor left, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to; nothing is under way.
    Stopped,
    /// A volume was taken away from this process.
    Fenced,
}

/// A volume with a name.
pub struct Export<V> {
    name: String,
    volume: V,
    read_only: bool,
    seat: Seat,
}

impl<V: Volume> Export<V> {
    /// Under this name.
    pub fn new(name: String, volume: V, read_only: bool) -> Self {
        Self { name, volume, read_only, seat: Seat::default() }
    }

    /// The volume, when nobody is served any more.
    pub fn into_volume(self) -> V {
        self.volume
    }

    fn offer(&self) -> Offer {
        let mut flags = transmission::HAS_FLAGS | transmission::SEND_FUA;
        if self.read_only {
            flags |= transmission::READ_ONLY;
        } else {
            flags |= transmission::SEND_TRIM | transmission::SEND_WRITE_ZEROES;
        }
        // It says that there is something to flush. A client that hears of it must tell its own that writes may be lost
        // when this process dies; where none can be, none needs to.
        if self.volume.is_cached() {
            flags |= transmission::SEND_FLUSH;
        }
        Offer { name: self.name.clone(), size: self.volume.size(), flags }
    }
}

/// Serves until `stop` is over, or a volume is taken away.
pub async fn serve<V: Volume>(
    listener: UnixListener,
    exports: Rc<Vec<Export<V>>>,
    stop: impl Future<Output = ()>,
) -> Ended {
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let next = async {
            let permit = std::sync::Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if matches!(ended, Ok(End::Fenced)) {
                    return Ended::Fenced;
                }
            }
            (accepted, permit) = next => match accepted {
                Ok((stream, _)) => {
                    let exports = Rc::clone(&exports);
                    connections.spawn_local(async move {
                        let _permit = permit;
                        Connection::new(stream, &exports).run().await
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    exports.iter().for_each(|export| export.seat.close());
    while let Some(ended) = connections.join_next().await {
        if matches!(ended, Ok(End::Fenced)) {
            return Ended::Fenced;
        }
    }
    Ended::Stopped
}
