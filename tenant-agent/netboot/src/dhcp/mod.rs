//! DHCP (RFC 2131): `authoritative`, and `proxy` beside another server. [`answer`] and [`proxy`] are pure, packet in and
//! packet out; [`socket`] moves the packets.
//!
//! Deliberately absent: BOOTP without options, DHCPINFORM, and options a node does not need to boot (router, name
//! servers: a provisioning network leads nowhere).

pub mod answer;
mod boot;
mod client;
mod leases;
mod proxy;
pub mod socket;
#[cfg(test)]
pub mod testing;
