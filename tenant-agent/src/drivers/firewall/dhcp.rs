//! The bridge's rules for DHCP requests: whose they are, and how many.
//!
//! A node's request names its own NIC, from its own Ethernet source, and has a limit of its own. What strangers may
//! send is limited in all and comes after, so that no number of invented MACs takes the nodes' part. Whoever sends a
//! node's MAC as its Ethernet source is that node as far as a bridge can tell.

use std::collections::BTreeSet;

use bmi_types::MacAddr;
use serde_json::json;

use super::{
    Table, accept, addresses, concat, drop_counted, field, is, is_not, limit, limit_each, one_of, range,
};
use crate::plan::spec::NetworkSpec;

/// The chain's name.
pub const CHAIN: &str = "dhcp";

/// Packets a second of one NIC. A rack of 40 that starts at once sends 4 each.
const PER_MAC: (u32, u32) = (10, 20);

/// Packets a second of one relay, which speaks for all behind it.
const PER_RELAY: (u32, u32) = (200, 400);

/// Packets a second of all strangers: a fifth of what the boot services take.
const STRANGERS_ALL: (u32, u32) = (100, 200);

/// Seconds after which a silent NIC's limit is forgotten.
const FORGET: u32 = 10;

/// `chaddr` (RFC 2131 section 2), behind 8 bytes of UDP header and 28 of the message, in bits.
const CHADDR_OFFSET: u32 = (8 + 28) * 8;
const CHADDR_LENGTH: u32 = 48;

/// Adds the chain that decides on packets to the boot services' UDP port 67. It names the sets of the bridge's table.
pub fn chain_add(table: &mut Table, network: &NetworkSpec) {
    let source = || field("ether", "saddr");
    let address = || field("ip", "saddr");
    let chaddr = || json!({"payload": {"base": "th", "offset": CHADDR_OFFSET, "len": CHADDR_LENGTH}});
    let macs: BTreeSet<MacAddr> = network.targets.iter().flat_map(|target| target.macs.clone()).collect();
    let each = |name| limit_each(name, PER_MAC.0, PER_MAC.1, FORGET);

    table.chain(CHAIN);
    if !network.relays.is_empty() {
        // The relay speaks for nodes, from its own NIC and address.
        let relay = is(address(), one_of(addresses(&network.relays)));
        let each = limit_each("dhcp_relays", PER_RELAY.0, PER_RELAY.1, FORGET);
        table.rule(CHAIN, &[relay, is_not(source(), "@node_macs"), each, accept()]);
    }
    if !macs.is_empty() {
        // nft 1.0.6 has no named set with a raw field in it.
        let own = macs.iter().map(|mac| concat(&[json!(mac.to_string()), json!(number(*mac))]));
        let own = is(concat(&[source(), chaddr()]), one_of(own.collect()));
        let unaddressed = is(address(), "0.0.0.0");
        table.rule(CHAIN, &[own.clone(), unaddressed, each("dhcp_nodes"), accept()]);
        let addressed = is(concat(&[source(), address()]), "@nodes");
        table.rule(CHAIN, &[own.clone(), addressed, each("dhcp_renewals"), accept()]);
        if network.targets.iter().any(|target| target.node_address.is_none()) {
            let any =
                [is(source(), "@nodes_any"), is(address(), one_of(vec![range(network.plan.node_range)]))];
            table.rule(CHAIN, &[&[own][..], &any, &[each("dhcp_any"), accept()]].concat());
        }
        let a_nodes = is(chaddr(), one_of(macs.iter().map(|mac| json!(number(*mac))).collect()));
        table.rule(CHAIN, &[&[a_nodes][..], &drop_counted()].concat());
    }
    // The comparison with zero fails for a fragment that ends before `chaddr`, and so escaped the rule above.
    let ranges = network.stranger_ranges().into_iter().map(range);
    let strangers = one_of([json!("0.0.0.0")].into_iter().chain(ranges).collect());
    table.rule(
        CHAIN,
        &[
            is_not(source(), "@node_macs"),
            is_not(chaddr(), 0),
            is(address(), strangers),
            each("dhcp_strangers"),
            limit(STRANGERS_ALL.0, STRANGERS_ALL.1),
            accept(),
        ],
    );
    table.rule(CHAIN, &drop_counted());
}

/// A MAC as nft writes raw fields.
fn number(mac: MacAddr) -> String {
    mac.octets().iter().fold("0x".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}
