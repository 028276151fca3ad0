//! DHCP packets in and out of ordinary UDP sockets.
//!
//! One is bound to 0.0.0.0:67 and hears broadcasts. The other is bound to the process's own address: it hears
//! renewals, and every answer leaves through it, because a broadcast needs a source address to find its way in a
//! namespace without a default route. No raw socket: answers to clients without an address are broadcast. Beside another
//! server a third is bound to port 4011 of that address, and answers from there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bmi_types::DhcpMode;
use dhcproto::v4::Message;
use dhcproto::{Decodable, Encodable};
use socket2::{Domain, Socket, Type};

use super::answer::Server;
use super::proxy;
use crate::config::Current;
use crate::event::Events;
use crate::http::Boots;
use crate::loaders::Loaders;

/// Where servers listen.
const SERVER_PORT: u16 = 67;

/// Where a server that only gives boot information listens besides (PXE specification 2.1, section 2.2.1).
const BOOT_PORT: u16 = 4011;

/// The largest packet looked at: an Ethernet frame.
const LARGEST: usize = 1500;

/// The shortest an answer may be: BOOTP clients expect 300 bytes (RFC 1542 section 2.1).
const SHORTEST: usize = 300;

/// Offsets of `htype` and `hlen`, and what Ethernet has there.
const ETHERNET: [u8; 2] = [1, 6];

/// A UDP socket that can be bound before its address exists.
///
/// # Errors
/// When the kernel refuses.
pub fn bind(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_freebind_v4(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket.into())
}

/// The sockets.
#[derive(Debug)]
pub struct Sockets {
    everyone: tokio::net::UdpSocket,
    own: tokio::net::UdpSocket,
    /// Only beside another server.
    boot: Option<tokio::net::UdpSocket>,
}

impl Sockets {
    /// Binds what a mode needs; nothing for `off`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(own: Ipv4Addr, mode: DhcpMode) -> io::Result<Option<Self>> {
        let socket = |address, port| tokio::net::UdpSocket::from_std(bind(address, port)?);
        let boot = match mode {
            DhcpMode::Off => return Ok(None),
            DhcpMode::Authoritative => None,
            DhcpMode::Proxy => Some(socket(own, BOOT_PORT)?),
        };
        let everyone = socket(Ipv4Addr::UNSPECIFIED, SERVER_PORT)?;
        Ok(Some(Self { everyone, own: socket(own, SERVER_PORT)?, boot }))
    }

    /// The next packet at the boot port, for ever without one.
    async fn boot_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match &self.boot {
            Some(socket) => socket.recv_from(buffer).await,
            None => std::future::pending().await,
        }
    }
}

/// Answers packets, for ever.
pub async fn serve(sockets: Sockets, current: Current, boots: Arc<Boots>, loaders: Loaders, events: Events) {
    let mut server = Server::new(loaders.clone());
    let (mut broadcast, mut direct, mut second) = ([0; LARGEST], [0; LARGEST], [0; LARGEST]);
    loop {
        // From whom it came matters only at the boot port.
        let (received, from) = tokio::select! {
            got = sockets.everyone.recv(&mut broadcast) => (got.map(|length| broadcast.get(..length)), None),
            got = sockets.own.recv(&mut direct) => (got.map(|length| direct.get(..length)), None),
            got = sockets.boot_receive(&mut second) => match got {
                Ok((length, SocketAddr::V4(from))) => (Ok(second.get(..length)), Some(from)),
                _ => continue,
            },
        };
        // An error here is an ICMP answer to something sent earlier; the next packet is as good as any.
        let Ok(Some(packet)) = received else { continue };
        let Some(request) = decode(packet) else { continue };
        let (config, now) = (current.get(), Instant::now());
        let issue = |holder| boots.issue(&config, holder, now);
        let reply = match (config.dhcp, from) {
            (DhcpMode::Authoritative, None) => server.answer(&config, &request, now, issue),
            (DhcpMode::Proxy, None) => proxy::offer(&config, &loaders, &request, issue),
            (DhcpMode::Proxy, Some(from)) => proxy::acknowledge(&config, &loaders, &request, from, issue),
            (DhcpMode::Off, _) | (DhcpMode::Authoritative, Some(_)) => None,
        };
        let Some(reply) = reply else { continue };
        let Ok(mut bytes) = reply.message.to_vec() else { continue };
        bytes.resize(bytes.len().max(SHORTEST), 0);
        let through = sockets.boot.as_ref().filter(|_| from.is_some()).unwrap_or(&sockets.own);
        match through.send_to(&bytes, reply.to).await {
            Ok(_) => events.say(reply.event),
            Err(error) => tracing::warn!(%error, to = %reply.to, "a DHCP answer could not be sent"),
        }
    }
}

/// Decodes a packet. The decoder has assertions that a hostile packet can reach in a development build, and trusts
/// `hlen`; neither may end the process.
fn decode(packet: &[u8]) -> Option<Message> {
    if packet.get(1..3) != Some(&ETHERNET) {
        return None;
    }
    catch_unwind(AssertUnwindSafe(|| Message::from_bytes(packet).ok())).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ask, nic};
    use super::*;

    #[test]
    fn hostile_packets_are_dropped() {
        let good = Ask::discover(nic()).packet().to_vec().unwrap();
        assert!(decode(&good).is_some());
        let mut long_address = good.clone();
        long_address[2] = 255;
        assert!(decode(&long_address).is_none());
        let mut rapid_commit = good.clone();
        rapid_commit.truncate(240);
        rapid_commit.extend([80, 3, 0, 0, 0, 255]);
        let _ = decode(&rapid_commit);
        for length in 0..good.len() {
            let _ = decode(&good[..length]);
        }
    }
}
