//! DHCP packets in and out of two ordinary UDP sockets.
//!
//! One is bound to 0.0.0.0:67 and hears broadcasts. The other is bound to the process's own address: it hears
//! renewals, and every answer leaves through it, because a broadcast needs a source address to find its way in a
//! namespace without a default route. No raw socket: answers to clients without an address are broadcast.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use dhcproto::v4::Message;
use dhcproto::{Decodable, Encodable};
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::Server;
use crate::config::Current;
use crate::event::Events;
use crate::http::Boots;

/// Where servers listen.
const SERVER_PORT: u16 = 67;

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
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_freebind_v4(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket.into())
}

/// The two sockets.
#[derive(Debug)]
pub struct Sockets {
    everyone: tokio::net::UdpSocket,
    own: tokio::net::UdpSocket,
}

impl Sockets {
    /// Binds both.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(own: Ipv4Addr) -> io::Result<Self> {
        Ok(Self {
            everyone: tokio::net::UdpSocket::from_std(bind(Ipv4Addr::UNSPECIFIED, SERVER_PORT)?)?,
            own: tokio::net::UdpSocket::from_std(bind(own, SERVER_PORT)?)?,
        })
    }
}

/// Answers packets, for ever.
pub async fn serve(sockets: Sockets, current: Current, boots: Arc<Boots>, events: Events) {
    let mut server = Server::default();
    let mut broadcast = [0; LARGEST];
    let mut direct = [0; LARGEST];
    loop {
        let received = tokio::select! {
            got = sockets.everyone.recv(&mut broadcast) => got.map(|length| broadcast.get(..length)),
            got = sockets.own.recv(&mut direct) => got.map(|length| direct.get(..length)),
        };
        // An error here is an ICMP answer to something sent earlier; the next packet is as good as any.
        let Ok(Some(packet)) = received else { continue };
        let Some(request) = decode(packet) else { continue };
        let now = Instant::now();
        let Some(reply) = server.answer(&current.get(), &request, now, |holder| boots.issue(holder, now))
        else {
            continue;
        };
        let Ok(mut bytes) = reply.message.to_vec() else { continue };
        bytes.resize(bytes.len().max(SHORTEST), 0);
        match sockets.own.send_to(&bytes, reply.to).await {
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
