//! Which NIC an address was last seen at, from the kernel's neighbour table of this network namespace.
//!
//! Deliberately absent: netlink. `/proc/self/net/arp` needs no socket and no privilege.

use std::net::Ipv4Addr;

use bmi_agent_api::config::{NetbootConfig, NetbootReservation};
use bmi_types::MacAddr;

/// The kernel's table.
const TABLE: &str = "/proc/self/net/arp";

/// The NIC that answered for an address, when the kernel knows one.
#[must_use]
pub fn neighbour(address: Ipv4Addr) -> Option<MacAddr> {
    find(&std::fs::read_to_string(TABLE).ok()?, address)
}

/// The NIC of a client that boots: the one the kernel sees, or, since behind a relay that is the router's, the first of
/// the node that has the address.
#[must_use]
pub fn client(config: &NetbootConfig, address: Ipv4Addr) -> Option<MacAddr> {
    let mut nodes = config.instances.iter().map(|instance| &instance.node).chain(&config.waiting);
    let relayed = |node: &&NetbootReservation| !config.relays.is_empty() && node.address == Some(address);
    match nodes.find(relayed) {
        Some(node) => node.macs.first().copied(),
        None => neighbour(address),
    }
}

/// The columns are: address, hardware type, flags, hardware address, mask, device.
fn find(table: &str, address: Ipv4Addr) -> Option<MacAddr> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let found: Ipv4Addr = columns.next()?.parse().ok()?;
        (found == address).then(|| columns.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.0.0.9         0x1         0x0         00:00:00:00:00:00     *        eth0\n\
                     10.0.0.7         0x1         0x2         52:54:00:00:00:07     *        eth0\n";
        assert_eq!(find(table, Ipv4Addr::new(10, 0, 0, 7)), "52:54:00:00:00:07".parse().ok());
        assert_eq!(find(table, Ipv4Addr::new(10, 0, 0, 9)), None);
        assert_eq!(find(table, Ipv4Addr::new(10, 0, 0, 1)), None);
    }
}
