//! Who may speak for a VXLAN, and which peer a frame came from.
//!
//! The kernel takes a segment's frames from any host that can send a packet to its UDP port, and does not say to the
//! bridge from which. So packets of other hosts than the peers are dropped, and each packet is marked with its source's
//! address: the mark stays on the frame that was in it, and the bridge's rules have it as a part of where a MAC is
//! (`places`). Other VXLANs of the host are not touched. With a multicast group there are no peers to compare with.
//!
//! RFC 7348 section 5: the network identifier is in bytes 4 to 6 of the VXLAN header, which follows that of UDP.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Ruleset, Table, addresses, drop_counted, field, is, is_not, meta, one_of};
use crate::plan::names::{InterfaceName, bridge_table};

/// What the table of a bridge's VXLAN is called.
#[must_use]
pub fn vxlan_name(bridge: &InterfaceName) -> String {
    format!("{}_vxlan", bridge_table(bridge))
}

/// The table of a bridge's VXLAN.
#[must_use]
pub fn vxlan_table(bridge: &InterfaceName, vni: u32, port: u16, peers: &BTreeSet<Ipv4Addr>) -> Ruleset {
    let mut table = Table::new("ip", Cow::Owned(vxlan_name(bridge)));
    let number = || json!({"payload": {"base": "th", "offset": 96, "len": 24}});
    let ours = || [is(field("udp", "dport"), port), is(number(), vni)];
    let source = || field("ip", "saddr");
    table.base_chain("input", "accept");
    if !peers.is_empty() {
        let peers: Vec<Ipv4Addr> = peers.iter().copied().collect();
        let others = is_not(source(), one_of(addresses(&peers)));
        table.rule("input", &[&ours()[..], &[others], &drop_counted()].concat());
    }
    // RFC 791 section 3.1: the source's address, as a number.
    let address = json!({"payload": {"base": "nh", "offset": 96, "len": 32}});
    let mark: Value = json!({"mangle": {"key": meta("mark"), "value": address}});
    table.rule("input", &[&ours()[..], &[mark]].concat());
    table.finish()
}

/// Removes the table of a bridge's VXLAN.
#[must_use]
pub fn vxlan_remove(bridge: &InterfaceName) -> Ruleset {
    Ruleset::removal("ip", &vxlan_name(bridge))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn the_rules_are_as_reviewed() {
        let bridge = "bmi0".parse().unwrap();
        let peers = BTreeSet::from(["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()]);
        testing::golden("vxlan.json", &vxlan_table(&bridge, 77, 4789, &peers));
        testing::golden("vxlan-group.json", &vxlan_table(&bridge, 77, 4789, &BTreeSet::new()));
    }
}
