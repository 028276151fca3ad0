//! DHCP (RFC 2131) in `authoritative` mode. [`answer`] is pure, packet in and packet out; [`socket`] moves the packets.
//!
//! Deliberately absent: relays, BOOTP without options, DHCPINFORM, and options a node does not need to boot (router,
//! name servers: a provisioning network leads nowhere).

pub mod answer;
mod leases;
pub mod socket;
#[cfg(test)]
pub mod testing;
