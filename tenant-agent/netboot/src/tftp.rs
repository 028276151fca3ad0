//! TFTP (RFC 1350, with the options of RFC 2347 to 2349) for the two loaders, read-only, from memory.
//!
//! The data socket of a transfer takes a port from the namespace's `ip_local_port_range`, which the agent sets to the
//! fixed range that its firewall lets out; the library offers no choice of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_tftp::packet;
use async_tftp::server::{Handler, TftpServerBuilder};
use bmi_agent_api::event::NetbootEvent;
use futures::io::{AsyncRead, Sink};

use crate::event::Events;
use crate::loaders::Loaders;
use crate::neighbour::neighbour;

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

struct Files {
    loaders: Loaders,
    events: Events,
    running: Arc<AtomicUsize>,
}

/// One transfer. It says so when it was read to its end.
struct Transfer {
    bytes: Arc<[u8]>,
    at: usize,
    whole: bool,
    name: &'static str,
    client: Ipv4Addr,
    events: Events,
    running: Arc<AtomicUsize>,
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
        self.running.fetch_sub(1, Ordering::Relaxed);
        if self.whole {
            self.events.say(NetbootEvent::Loader {
                address: self.client,
                mac: neighbour(self.client),
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
        if self.running.fetch_add(1, Ordering::Relaxed) >= TRANSFERS_MAX {
            self.running.fetch_sub(1, Ordering::Relaxed);
            return Err(packet::Error::Msg("too many transfers at once".to_owned()));
        }
        let size = u64::try_from(bytes.len()).ok();
        let (events, running) = (self.events.clone(), Arc::clone(&self.running));
        Ok((Transfer { bytes, at: 0, whole: false, name, client, events, running }, size))
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
pub async fn serve(socket: UdpSocket, loaders: Loaders, events: Events) -> Result<(), async_tftp::Error> {
    let files = Files { loaders, events, running: Arc::default() };
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
