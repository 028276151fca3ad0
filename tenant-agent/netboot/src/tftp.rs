//! TFTP (RFC 1350, with the options of RFC 2347 to 2349) for the two loaders, read-only, from memory.
//!
//! The data socket of a transfer takes a port from the namespace's `ip_local_port_range`, which the agent sets to the
//! fixed range that its firewall lets out; the library offers no choice of its own.
//!
//! A client that asks and never acknowledges holds a transfer until it times out. So each address has a few at most,
//! and strangers leave room for nodes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_tftp::packet;
use async_tftp::server::{Handler, TftpServerBuilder};
use bmi_agent_api::event::NetbootEvent;
use bmi_types::Ipv4Range;
use futures::io::{AsyncRead, Sink};

use crate::config::Current;
use crate::event::Events;
use crate::loaders::Loaders;
use crate::neighbour::client;

/// The port of TFTP.
pub const PORT: u16 = 69;

/// The largest block: one that fits an Ethernet frame with its headers.
const BLOCK_MAX: u16 = 1468;

/// The largest window (RFC 7440): 64 blocks are under 100 KiB.
const WINDOW_MAX: u16 = 64;

/// How long an acknowledgement may take, and how often a block is sent again: about 15 s in all.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: u32 = 15;

/// Transfers at once: a rack. Each holds a socket.
const TRANSFERS_MAX: usize = 128;

/// Transfers at once to one address: firmware asks for the size, then for the file, and may have given up before.
const PER_CLIENT_MAX: usize = 4;

/// Transfers at once to addresses of the discovery range, all together.
const STRANGERS_MAX: usize = TRANSFERS_MAX / 2;

/// How many transfers are running to each client.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashMap<Ipv4Addr, usize>>>);

impl Running {
    fn clients(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more transfer, until it is dropped. Nothing when there is none for this client.
    fn take(&self, client: Ipv4Addr, strangers: Ipv4Range) -> Option<Room> {
        let mut clients = self.clients();
        let of_strangers: usize =
            clients.iter().filter(|(client, _)| strangers.contains(**client)).map(|(_, count)| count).sum();
        let crowded = strangers.contains(client) && of_strangers >= STRANGERS_MAX;
        let own = clients.get(&client).copied().unwrap_or_default();
        if crowded || own >= PER_CLIENT_MAX || clients.values().sum::<usize>() >= TRANSFERS_MAX {
            return None;
        }
        clients.insert(client, own + 1);
        Some(Room { client, running: self.clone() })
    }
}

/// The room of one transfer.
struct Room {
    client: Ipv4Addr,
    running: Running,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut clients = self.running.clients();
        match clients.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(clients.remove(&self.client)),
        }
    }
}

struct Files {
    current: Current,
    loaders: Loaders,
    events: Events,
    running: Running,
}

/// One transfer. It says so when it was read to its end.
struct Transfer {
    bytes: Arc<[u8]>,
    at: usize,
    whole: bool,
    name: &'static str,
    room: Room,
    current: Current,
    events: Events,
}

impl AsyncRead for Transfer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.len().min(into.len());
        for (to, from) in into.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += length;
        self.whole = self.at == self.bytes.len();
        Poll::Ready(Ok(length))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.whole {
            self.events.say(NetbootEvent::Loader {
                address: self.room.client,
                mac: client(&self.current.get(), self.room.client),
                file: self.name.to_owned(),
                bytes: u64::try_from(self.bytes.len()).unwrap_or(u64::MAX),
                protocol: "tftp".to_owned(),
            });
        }
    }
}

impl Handler for Files {
    type Reader = Transfer;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Transfer, Option<u64>), packet::Error> {
        let IpAddr::V4(client) = client.ip() else { return Err(packet::Error::PermissionDenied) };
        let (name, bytes) =
            path.to_str().and_then(|path| self.loaders.get(path)).ok_or(packet::Error::FileNotFound)?;
        let strangers = self.current.get().plan.discovery_range;
        let room = self.running.take(client, strangers);
        let room = room.ok_or_else(|| packet::Error::Msg("too many transfers at once".to_owned()))?;
        let size = u64::try_from(bytes.len()).ok();
        let (current, events) = (self.current.clone(), self.events.clone());
        Ok((Transfer { bytes, at: 0, whole: false, name, room, current, events }, size))
    }

    async fn write_req_open(
        &mut self,
        _: &SocketAddr,
        _: &Path,
        _: Option<u64>,
    ) -> Result<Sink, packet::Error> {
        Err(packet::Error::PermissionDenied)
    }
}

/// Serves until the socket fails.
///
/// # Errors
/// When the socket does.
pub async fn serve(
    socket: UdpSocket,
    current: Current,
    loaders: Loaders,
    events: Events,
) -> Result<(), async_tftp::Error> {
    let files = Files { current, loaders, events, running: Running::default() };
    let server = TftpServerBuilder::with_handler(files)
        .std_socket(socket)?
        .block_size_limit(BLOCK_MAX)
        .window_size_limit(WINDOW_MAX)
        .timeout(TIMEOUT)
        .max_send_retries(RETRIES)
        .build()
        .await?;
    server.serve().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::testing::config;

    #[test]
    fn strangers_leave_room_for_nodes() {
        let (running, strangers) = (Running::default(), config().plan.discovery_range);
        let stranger = |last| Ipv4Addr::new(10, 20, 0, last);
        let node = |last| Ipv4Addr::new(10, 20, 0, last);
        assert!(strangers.contains(stranger(200)) && !strangers.contains(node(70)));

        let mut held: Vec<Room> = (0..140).filter_map(|_| running.take(stranger(200), strangers)).collect();
        assert_eq!(held.len(), PER_CLIENT_MAX, "one address");
        for last in 201..=240 {
            held.extend((0..PER_CLIENT_MAX).filter_map(|_| running.take(stranger(last), strangers)));
        }
        assert_eq!(held.len(), STRANGERS_MAX, "strangers");
        for last in 70..=109 {
            held.extend(running.take(node(last), strangers));
            held.extend(running.take(node(last), strangers));
        }
        assert_eq!(held.len(), TRANSFERS_MAX, "everybody");

        held.truncate(TRANSFERS_MAX - 1);
        assert!(running.take(node(109), strangers).is_some(), "what ends makes room");
        drop(held);
        assert!(running.clients().is_empty(), "nothing is kept of who has gone");
    }
}
