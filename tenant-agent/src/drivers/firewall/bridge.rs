//! The rules of the bridge, in the agent's own namespace: who may talk to whom.
//!
//! - a node to its own target, from its MAC and its address; the target back to that MAC and address;
//! - any node to the boot services, an instance's node only under its own address; the boot services to any node;
//! - target to target, target to boot services, node to node, anything to or from the host itself: dropped, counted.
//!
//! The bridge learns where a MAC is from any frame, before it asks the forward chain. So frames with one of our MACs
//! as their source that come in elsewhere are dropped in `prerouting`, which is before it learns. Frames to the link-local
//! groups pass no chain before it learns; it is told not to learn from them (`Links::bridge_ensure`). A port that joins
//! the bridge is not fenced before the driver has seen it.
//!
//! Every lookup is one hash, whatever the number of instances. This kernel family may have no `meta ibrname`, so rules
//! name ports: ours, and those that were found in the bridge besides (`node_ports`), which the driver looks at every
//! second. Other bridges of the host are not touched. Behind one uplink only the switch can tell nodes apart.
//!
//! Deliberately absent: node to node traffic. A flat network for booting needs none.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Ruleset, Table, accept, concat, dhcp, drop_counted, field, goto, is, is_not, meta, one_of, range,
};
use crate::plan::names::{InterfaceName, ProcessId, bridge_table as table_name, mac_text, port};
use crate::plan::spec::NetworkSpec;

/// The table of a bridge whose ports besides ours are `node_ports`.
#[must_use]
pub fn bridge_table(bridge: &InterfaceName, network: &NetworkSpec, node_ports: &BTreeSet<String>) -> Ruleset {
    let name_of = |id| json!(port(bridge, id).as_str());
    let mac_of = |id| json!(mac_text(bridge, id));
    let source_of = |id| concat(&[name_of(id), mac_of(id)]);
    let netboot = ProcessId::Netboot;
    let mut table = Table::new("bridge", Cow::Owned(table_name(bridge)));

    let mut ours = vec![name_of(netboot)];
    let (mut our_macs, mut our_sources) = (vec![mac_of(netboot)], vec![source_of(netboot)]);
    let (mut to_target, mut from_target, mut nodes, mut node_macs, mut node_addresses) =
        (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
    for target in &network.targets {
        let id = ProcessId::Target(target.instance);
        let (address, node) = (json!(target.address.to_string()), json!(target.node_address.to_string()));
        ours.push(name_of(id));
        our_macs.push(mac_of(id));
        our_sources.push(source_of(id));
        node_addresses.push(node.clone());
        for mac in &target.macs {
            let mac = json!(mac.to_string());
            to_target.push(concat(&[name_of(id), mac.clone(), node.clone()]));
            from_target.push(concat(&[name_of(id), mac_of(id), address.clone(), mac.clone(), node.clone()]));
            nodes.push(concat(&[mac.clone(), node.clone()]));
            node_macs.insert(mac.as_str().unwrap_or_default().to_owned());
        }
    }
    let (ifname, ether, ipv4) = ("ifname", "ether_addr", "ipv4_addr");
    table.set("ours", &json!(ifname), ours);
    table.set("our_macs", &json!(ether), our_macs);
    table.set("our_sources", &json!([ifname, ether]), our_sources);
    table.set("node_ports", &json!(ifname), node_ports.iter().map(|name| json!(name)).collect());
    table.set("to_target", &json!([ifname, ether, ipv4]), to_target);
    table.set("from_target", &json!([ifname, ether, ipv4, ether, ipv4]), from_target);
    table.set("nodes", &json!([ether, ipv4]), nodes);
    table.set("node_macs", &json!(ether), node_macs.into_iter().map(Value::from).collect());
    table.set("node_addresses", &json!(ipv4), node_addresses);

    // What the bridge may learn: at each of our ports our MAC and nothing else, and our MACs nowhere else.
    let (from_ours, to_ours) = (|| is(meta("iifname"), "@ours"), || is(meta("oifname"), "@ours"));
    let (source, goal) = (|| field("ether", "saddr"), || field("ether", "daddr"));
    table.base_chain("prerouting", "accept");
    table.rule("prerouting", &[is(concat(&[meta("iifname"), source()]), "@our_sources"), accept()]);
    table.rule("prerouting", &[&[from_ours()][..], &drop_counted()].concat());
    let stolen = [is(meta("iifname"), "@node_ports"), is(source(), "@our_macs")];
    table.rule("prerouting", &[&stolen[..], &drop_counted()].concat());

    // Frames that touch none of our ports and none of this bridge's are another bridge's: the policy leaves them.
    table.base_chain("forward", "accept");

    // iSCSI first: it is nearly all of the traffic.
    let ip = |name| field("ip", name);
    let arp = |name| field("arp", name);
    table.rule("forward", &[is(concat(&[meta("oifname"), source(), ip("saddr")]), "@to_target"), accept()]);
    table.rule(
        "forward",
        &[
            is(concat(&[meta("iifname"), source(), ip("saddr"), goal(), ip("daddr")]), "@from_target"),
            accept(),
        ],
    );
    let arp_to_target = [
        is(concat(&[meta("oifname"), source(), arp("saddr ip")]), "@to_target"),
        is(arp("saddr ether"), "@node_macs"),
        accept(),
    ];
    table.rule("forward", &arp_to_target);
    table.rule(
        "forward",
        &[
            is(
                concat(&[meta("iifname"), arp("saddr ether"), arp("saddr ip"), goal(), arp("daddr ip")]),
                "@from_target",
            ),
            accept(),
        ],
    );

    // Ours among themselves.
    table.rule("forward", &[&[from_ours(), to_ours()][..], &drop_counted()].concat());

    // The boot services to nodes, pinned to their MAC and address.
    let from_netboot = || is(meta("iifname"), name_of(netboot));
    let own = || json!(network.plan.netboot_address.to_string());
    table.rule("forward", &[from_netboot(), is(source(), mac_of(netboot)), is(ip("saddr"), own()), accept()]);
    table.rule(
        "forward",
        &[
            from_netboot(),
            is(source(), mac_of(netboot)),
            is(arp("saddr ether"), mac_of(netboot)),
            is(arp("saddr ip"), own()),
            accept(),
        ],
    );

    // Nodes to the boot services: a node under its own address, a stranger under one of the discovery range.
    let to_netboot = || is(meta("oifname"), name_of(netboot));
    dhcp::chain_add(&mut table, network);
    table.rule("forward", &[to_netboot(), is(field("udp", "dport"), 67), goto(dhcp::CHAIN)]);
    let strangers = || one_of(vec![range(network.plan.discovery_range)]);
    for address in [ip("saddr"), arp("saddr ip")] {
        table.rule("forward", &[to_netboot(), is(concat(&[source(), address.clone()]), "@nodes"), accept()]);
        table.rule(
            "forward",
            &[to_netboot(), is_not(source(), "@node_macs"), is(address, strangers()), accept()],
        );
    }

    // Whatever else touches our ports or passes between the bridge's other ports.
    for touching in [from_ours(), to_ours()] {
        table.rule("forward", &[&[touching][..], &drop_counted()].concat());
    }
    let among_nodes = [is(meta("iifname"), "@node_ports"), is(meta("oifname"), "@node_ports")];
    table.rule("forward", &[&among_nodes[..], &drop_counted()].concat());

    // The host is not on this network.
    table.base_chain("input", "accept");
    table.base_chain("output", "accept");
    for set in ["@ours", "@node_ports"] {
        table.rule("input", &[&[is(meta("iifname"), set)][..], &drop_counted()].concat());
        table.rule("output", &[&[is(meta("oifname"), set)][..], &drop_counted()].concat());
    }
    table.finish()
}

/// Removes the table of a bridge.
#[must_use]
pub fn bridge_remove(bridge: &InterfaceName) -> Ruleset {
    let table = json!({"table": {"family": "bridge", "name": table_name(bridge)}});
    Ruleset(json!({"nftables": [{"add": table}, {"delete": table}]}))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn the_rules_are_as_reviewed() {
        let bridge = "bmi0".parse().unwrap();
        let node_ports = BTreeSet::from(["tap0".to_owned(), "tap1".to_owned()]);
        testing::golden("bridge.json", &bridge_table(&bridge, &testing::network(2), &node_ports));
        testing::golden("bridge-empty.json", &bridge_table(&bridge, &testing::network(0), &BTreeSet::new()));
    }
}
