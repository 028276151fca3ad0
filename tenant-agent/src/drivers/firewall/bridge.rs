//! The rules of the bridge, in the agent's own namespace: who may talk to whom.
//!
//! - a node to its own target, from its MAC and its address; the target back to that MAC and address;
//! - any node to the boot services, an instance's node only under its own address; the boot services to any node;
//! - beside another DHCP server: DHCP and ARP between nodes and the uplink, behind which that server is;
//! - target to target, target to boot services, node to node, anything to or from the host itself: dropped, counted.
//!
//! A node's own address is any of the node range where another server gives it. Through a relay a node's frames come
//! with the MAC of the router, so there only the address counts.
//!
//! The bridge learns where a MAC is from any frame, before it asks the forward chain. So frames with one of our MACs
//! as their source that come in elsewhere are dropped in `prerouting`, which is before it learns; `places` does the same
//! for nodes' MACs. Frames to the link-local groups pass no chain before it learns; it is told not to learn from them
//! (`Links::bridge_ensure`).
//!
//! Every lookup is one hash, whatever the number of instances. This kernel family may have no `meta ibrname`, so rules
//! name ports: ours, and those that were found in the bridge besides (`node_ports`), which the driver looks at every
//! second. A port that joins reaches none of ours and none of those before it is found; only two that join within the
//! same second reach each other until then. Other bridges of the host are not touched. Behind one uplink only the switch
//! can tell nodes apart.
//!
//! Deliberately absent: node to node traffic. A flat network for booting needs none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bmi_types::{DhcpMode, MacAddr};
use serde_json::{Value, json};

use super::places::Place;
use super::{
    Ruleset, Table, accept, addresses, concat, dhcp, drop_counted, field, goto, is, is_not, meta, one_of,
    places, range,
};
use crate::plan::names::{InterfaceName, ProcessId, bridge_table as table_name, mac_text, port};
use crate::plan::spec::NetworkSpec;

/// What is known of the ports of the bridge that are not ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePorts {
    /// Their names.
    pub names: BTreeSet<String>,
    /// The one that leads to the rest of the network.
    pub uplink: Option<String>,
    /// At which of them a node's MAC was seen first.
    pub places: BTreeMap<MacAddr, Place>,
}

/// The table of a bridge.
#[must_use]
pub fn bridge_table(bridge: &InterfaceName, network: &NetworkSpec, ports: &NodePorts) -> Ruleset {
    let mut table = Table::new("bridge", Cow::Owned(table_name(bridge)));
    sets_add(&mut table, bridge, network, ports);

    // What the bridge may learn: at each of our ports our MAC and nothing else, and our MACs nowhere else.
    let (from_ours, to_ours) = (|| is(meta("iifname"), "@ours"), || is(meta("oifname"), "@ours"));
    let (from_nodes, to_nodes) =
        (|| is(meta("iifname"), "@node_ports"), || is(meta("oifname"), "@node_ports"));
    table.base_chain("prerouting", "accept");
    table.rule("prerouting", &[is(concat(&[meta("iifname"), source()]), "@our_sources"), accept()]);
    table.rule("prerouting", &[&[from_ours()][..], &drop_counted()].concat());
    table.rule("prerouting", &[&[from_nodes(), is(source(), "@our_macs")][..], &drop_counted()].concat());
    places::rules_add(&mut table);

    // Frames that touch none of our ports and none of this bridge's are another bridge's: the policy leaves them. Ours
    // talk with ports that were found, and with nothing else: not among themselves, nor with one that joined just now.
    table.base_chain("forward", "accept");
    for (ours, other) in [(to_ours(), meta("iifname")), (from_ours(), meta("oifname"))] {
        table.rule("forward", &[&[ours, is_not(other, "@node_ports")][..], &drop_counted()].concat());
    }
    targets_add(&mut table, network);
    netboot_add(&mut table, bridge, network);
    for touching in [from_ours(), to_ours()] {
        table.rule("forward", &[&[touching][..], &drop_counted()].concat());
    }
    if let (Some(uplink), DhcpMode::Proxy | DhcpMode::Off) = (&ports.uplink, network.dhcp) {
        other_server_add(&mut table, network, uplink);
    }
    for touching in [from_nodes(), to_nodes()] {
        table.rule("forward", &[&[touching][..], &drop_counted()].concat());
    }

    // The host is not on this network.
    table.base_chain("input", "accept");
    table.base_chain("output", "accept");
    for set in ["@ours", "@node_ports"] {
        table.rule("input", &[&[is(meta("iifname"), set)][..], &drop_counted()].concat());
        table.rule("output", &[&[is(meta("oifname"), set)][..], &drop_counted()].concat());
    }
    table.finish()
}

fn source() -> Value {
    field("ether", "saddr")
}

fn goal() -> Value {
    field("ether", "daddr")
}

fn ip(name: &str) -> Value {
    field("ip", name)
}

fn arp(name: &str) -> Value {
    field("arp", name)
}

/// Everything the rules look up. A set that ends in `_any` is of nodes whose address another server gives; one that
/// ends in `_relayed` leaves the MAC open.
fn sets_add(table: &mut Table, bridge: &InterfaceName, network: &NetworkSpec, ports: &NodePorts) {
    let name_of = |id| json!(port(bridge, id).as_str());
    let mac_of = |id| json!(mac_text(bridge, id));
    let source_of = |id| concat(&[name_of(id), mac_of(id)]);
    let netboot = ProcessId::Netboot;
    let mut ours = vec![name_of(netboot)];
    let (mut our_macs, mut our_sources) = (vec![mac_of(netboot)], vec![source_of(netboot)]);
    let (mut to, mut from, mut nodes) = <(Vec<Value>, Vec<Value>, Vec<Value>)>::default();
    let (mut to_any, mut from_any, mut nodes_any) = <(Vec<Value>, Vec<Value>, Vec<Value>)>::default();
    let (mut to_relayed, mut from_relayed) = <(Vec<Value>, Vec<Value>)>::default();
    let mut our_addresses = Vec::new();
    let mut node_macs = BTreeSet::new();
    for target in &network.targets {
        let id = ProcessId::Target(target.instance);
        let address = || json!(target.address.to_string());
        ours.push(name_of(id));
        our_macs.push(mac_of(id));
        our_sources.push(source_of(id));
        for mac in &target.macs {
            node_macs.insert(*mac);
            let mac = || json!(mac.to_string());
            if let Some(node) = target.node_address {
                let node = || json!(node.to_string());
                to.push(concat(&[name_of(id), mac(), node()]));
                from.push(concat(&[name_of(id), mac_of(id), address(), mac(), node()]));
                nodes.push(concat(&[mac(), node()]));
            } else {
                to_any.push(concat(&[name_of(id), mac()]));
                from_any.push(concat(&[name_of(id), mac_of(id), address(), mac()]));
                nodes_any.push(mac());
            }
        }
        if let Some(node) = target.node_address.map(|node| json!(node.to_string()))
            && !network.relays.is_empty()
        {
            our_addresses.push(concat(&[name_of(id), mac_of(id), address()]));
            to_relayed.push(concat(&[name_of(id), node.clone()]));
            from_relayed.push(concat(&[name_of(id), mac_of(id), address(), node]));
        }
    }
    let (ifname, ether, ipv4) = ("ifname", "ether_addr", "ipv4_addr");
    table.set("ours", &json!(ifname), ours);
    table.set("our_macs", &json!(ether), our_macs);
    table.set("our_sources", &json!([ifname, ether]), our_sources);
    table.set("node_ports", &json!(ifname), ports.names.iter().map(|name| json!(name)).collect());
    table.set("to_target", &json!([ifname, ether, ipv4]), to);
    table.set("to_target_any", &json!([ifname, ether]), to_any);
    table.set("to_target_relayed", &json!([ifname, ipv4]), to_relayed);
    table.set("from_target", &json!([ifname, ether, ipv4, ether, ipv4]), from);
    table.set("from_target_any", &json!([ifname, ether, ipv4, ether]), from_any);
    table.set("from_target_relayed", &json!([ifname, ether, ipv4, ipv4]), from_relayed);
    table.set("our_addresses", &json!([ifname, ether, ipv4]), our_addresses);
    table.set("nodes", &json!([ether, ipv4]), nodes);
    table.set("nodes_any", &json!(ether), nodes_any);
    places::sets_add(table, &node_macs, &ports.places);
    table.set("node_macs", &json!(ether), node_macs.iter().map(|mac| json!(mac.to_string())).collect());
}

/// Nodes and their targets. iSCSI first: it is nearly all of the traffic.
fn targets_add(table: &mut Table, network: &NetworkSpec) {
    let unaddressed = network.targets.iter().any(|target| target.node_address.is_none());
    let nodes = || one_of(vec![range(network.plan.node_range)]);
    let (iif, oif) = (|| meta("iifname"), || meta("oifname"));
    let not_a_node = || is_not(source(), "@node_macs");

    table.rule("forward", &[is(concat(&[oif(), source(), ip("saddr")]), "@to_target"), accept()]);
    let back = concat(&[iif(), source(), ip("saddr"), goal(), ip("daddr")]);
    table.rule("forward", &[is(back, "@from_target"), accept()]);
    if unaddressed {
        let to = [is(concat(&[oif(), source()]), "@to_target_any"), is(ip("saddr"), nodes()), accept()];
        table.rule("forward", &to);
        let back = concat(&[iif(), source(), ip("saddr"), goal()]);
        table.rule("forward", &[is(back, "@from_target_any"), is(ip("daddr"), nodes()), accept()]);
    }
    if !network.relays.is_empty() {
        let to = concat(&[oif(), ip("saddr")]);
        table.rule("forward", &[is(to, "@to_target_relayed"), not_a_node(), accept()]);
        let back = concat(&[iif(), source(), ip("saddr"), ip("daddr")]);
        table.rule("forward", &[is(back, "@from_target_relayed"), is_not(goal(), "@node_macs"), accept()]);
    }

    // An ARP packet says whose address it is once more inside: both must be the node's.
    let own = || is(arp("saddr ether"), "@node_macs");
    let to = concat(&[oif(), source(), arp("saddr ip")]);
    table.rule("forward", &[is(to, "@to_target"), own(), accept()]);
    let back = concat(&[iif(), arp("saddr ether"), arp("saddr ip"), goal(), arp("daddr ip")]);
    table.rule("forward", &[is(back, "@from_target"), accept()]);
    if unaddressed {
        let to =
            [is(concat(&[oif(), source()]), "@to_target_any"), own(), is(arp("saddr ip"), nodes()), accept()];
        table.rule("forward", &to);
        let back = concat(&[iif(), arp("saddr ether"), arp("saddr ip"), goal()]);
        table.rule("forward", &[is(back, "@from_target_any"), accept()]);
    }
    if !network.relays.is_empty() {
        let known = || one_of([addresses(&network.relays), vec![range(network.plan.node_range)]].concat());
        let other = is_not(arp("saddr ether"), "@node_macs");
        table.rule(
            "forward",
            &[is(oif(), "@ours"), not_a_node(), other, is(arp("saddr ip"), known()), accept()],
        );
        // The target knows such a node by its address only, and asks everybody.
        let own = is(concat(&[iif(), arp("saddr ether"), arp("saddr ip")]), "@our_addresses");
        table.rule("forward", &[own, is(arp("daddr ip"), known()), accept()]);
    }
}

/// The boot services and whoever boots.
fn netboot_add(table: &mut Table, bridge: &InterfaceName, network: &NetworkSpec) {
    let (name, mac) = (port(bridge, ProcessId::Netboot), mac_text(bridge, ProcessId::Netboot));
    let (from, to) = (|| is(meta("iifname"), name.as_str()), || is(meta("oifname"), name.as_str()));
    let own = || json!(network.plan.netboot_address.to_string());
    let own_mac = || is(source(), mac.as_str());
    table.rule("forward", &[from(), own_mac(), is(ip("saddr"), own()), accept()]);
    let arp_own = [is(arp("saddr ether"), mac.as_str()), is(arp("saddr ip"), own()), accept()];
    table.rule("forward", &[&[from(), own_mac()][..], &arp_own].concat());

    // A node under its own address, a stranger under one that strangers have.
    dhcp::chain_add(table, network);
    table.rule("forward", &[to(), is(field("udp", "dport"), 67), goto(dhcp::CHAIN)]);
    let strangers = || one_of(network.stranger_ranges().into_iter().map(range).collect());
    for address in [ip("saddr"), arp("saddr ip")] {
        table.rule("forward", &[to(), is(concat(&[source(), address.clone()]), "@nodes"), accept()]);
        if network.targets.iter().any(|target| target.node_address.is_none()) {
            let nodes = one_of(vec![range(network.plan.node_range)]);
            let any = [to(), is(source(), "@nodes_any"), is(address.clone(), nodes), accept()];
            table.rule("forward", &any);
        }
        table.rule("forward", &[to(), is_not(source(), "@node_macs"), is(address, strangers()), accept()]);
    }
}

/// Nodes and a DHCP server behind the uplink: DHCP and ARP, and nobody says that one of our addresses is his.
fn other_server_add(table: &mut Table, network: &NetworkSpec, uplink: &str) {
    let ours =
        || one_of(vec![json!(network.plan.netboot_address.to_string()), range(network.plan.target_range)]);
    let (in_up, out_up) = (is(meta("iifname"), uplink), is(meta("oifname"), uplink));
    let in_node = is(meta("iifname"), "@node_ports");
    let out_node = is(meta("oifname"), "@node_ports");
    for (from, to, ports) in [(in_up, out_node, (67, 68)), (in_node, out_up, (68, 67))] {
        let dhcp = [is(field("udp", "sport"), ports.0), is(field("udp", "dport"), ports.1), accept()];
        table.rule("forward", &[&[from.clone(), to.clone()][..], &dhcp].concat());
        table.rule("forward", &[from, to, is_not(arp("saddr ip"), ours()), accept()]);
    }
}

/// Removes the table of a bridge.
#[must_use]
pub fn bridge_remove(bridge: &InterfaceName) -> Ruleset {
    Ruleset::removal("bridge", &table_name(bridge))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn ports() -> NodePorts {
        NodePorts {
            names: BTreeSet::from(["tap0".to_owned(), "tap1".to_owned(), "up0".to_owned()]),
            uplink: Some("up0".to_owned()),
            places: BTreeMap::from([(
                "52:54:00:00:00:01".parse().unwrap(),
                Place { port: "tap0".to_owned(), peer: None },
            )]),
        }
    }

    #[test]
    fn the_rules_are_as_reviewed() {
        let bridge = "bmi0".parse().unwrap();
        testing::golden("bridge.json", &bridge_table(&bridge, &testing::network(2), &ports()));
        let empty = bridge_table(&bridge, &testing::network(0), &NodePorts::default());
        testing::golden("bridge-empty.json", &empty);
    }

    #[test]
    fn the_rules_beside_another_dhcp_server_are_as_reviewed() {
        let mut network = testing::network(1);
        network.dhcp = DhcpMode::Proxy;
        network.targets[0].node_address = None;
        testing::golden("bridge-proxy.json", &bridge_table(&"bmi0".parse().unwrap(), &network, &ports()));
    }

    #[test]
    fn the_rules_for_relayed_nodes_are_as_reviewed() {
        let mut network = testing::network(1);
        network.relays = vec![testing::relay()];
        testing::golden("bridge-relays.json", &bridge_table(&"bmi0".parse().unwrap(), &network, &ports()));
    }
}
