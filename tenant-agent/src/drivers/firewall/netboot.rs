//! The rules inside the boot services' namespace. Who may send how many DHCP requests is decided at the bridge, which
//! knows the nodes' MACs; here is only the most that the process is given.

use std::borrow::Cow;

use serde_json::json;

use super::{
    Ruleset, TABLE, Table, accept, addresses, connections_above, drop_counted, field, is, limit, one_of,
    range, state,
};
use crate::plan::spec::NetbootSpec;

/// Ports from which TFTP data is sent. The launcher makes them the namespace's `ip_local_port_range`, so that the rule
/// can name them: the first data packet comes from a new port and belongs to no established flow.
pub const TRANSFER_PORTS: (u16, u16) = (50_000, 51_023);

/// DHCP packets a second in all. The bridge lets a fifth of that through from strangers.
const DHCP_ALL: (u32, u32) = (500, 1000);

/// New TFTP transfers, and new HTTP connections, a second: from all nodes, and from all strangers.
const REQUESTS: (u32, u32) = (500, 1000);

/// HTTP connections of one address at once: firmware has two. The boot services have 1024 for all, and who only keeps them open
/// must not have them all.
const CONNECTIONS_EACH: u32 = 16;

/// The table of the boot services.
#[must_use]
pub fn netboot_table(netboot: &NetbootSpec) -> Ruleset {
    let plan = &netboot.plan;
    let clients = || one_of(vec![range(plan.node_range), range(plan.discovery_range)]);
    let own = || is(field("ip", "daddr"), plan.netboot_address.to_string());
    let everyone = || is(field("ip", "daddr"), "255.255.255.255");
    let all = |(rate, burst): (u32, u32)| limit(rate, burst);
    let udp = |port: u16| is(field("udp", "dport"), port);
    let mut table = Table::new("inet", Cow::Borrowed(TABLE));

    table.base_chain("input", "drop");
    table.rule("input", &[state(&["established"]), accept()]);
    // Before a client has an address; and one that has one, renewing or asking everybody.
    let unaddressed = is(field("ip", "saddr"), "0.0.0.0");
    table.rule("input", &[unaddressed, everyone(), udp(67), all(DHCP_ALL), accept()]);
    table.rule("input", &[is(field("ip", "saddr"), clients()), udp(67), all(DHCP_ALL), accept()]);
    if !netboot.relays.is_empty() {
        let relay = is(field("ip", "saddr"), one_of(addresses(&netboot.relays)));
        table.rule("input", &[relay, own(), udp(67), all(DHCP_ALL), accept()]);
    }
    let held = connections_above("http_clients", CONNECTIONS_EACH);
    table.rule("input", &[&[is(field("tcp", "dport"), 80), held][..], &drop_counted()].concat());
    let transfers = || one_of(vec![json!(69), json!(4011)]);
    for clients in [plan.node_range, plan.discovery_range] {
        for ports in [is(field("udp", "dport"), transfers()), is(field("tcp", "dport"), 80)] {
            let from = is(field("ip", "saddr"), one_of(vec![range(clients)]));
            table.rule("input", &[from, own(), ports, all(REQUESTS), accept()]);
        }
    }
    table.rule("input", &drop_counted());

    table.base_chain("output", "drop");
    table.rule("output", &[state(&["established"]), accept()]);
    let from = is(field("ip", "saddr"), plan.netboot_address.to_string());
    table.rule("output", &[from.clone(), everyone(), is(field("udp", "sport"), 67), udp(68), accept()]);
    if !netboot.relays.is_empty() {
        let relay = is(field("ip", "daddr"), one_of(addresses(&netboot.relays)));
        table.rule("output", &[from.clone(), relay, is(field("udp", "sport"), 67), udp(67), accept()]);
    }
    let ports = json!({"range": [TRANSFER_PORTS.0, TRANSFER_PORTS.1]});
    table.rule(
        "output",
        &[from, is(field("ip", "daddr"), clients()), is(field("udp", "sport"), ports), accept()],
    );
    table.rule("output", &drop_counted());
    table.base_chain("forward", "drop");
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn the_rules_are_as_reviewed() {
        testing::golden("netboot.json", &netboot_table(&testing::netboot()));
        let relayed = NetbootSpec { relays: vec![testing::relay()], ..testing::netboot() };
        testing::golden("netboot-relays.json", &netboot_table(&relayed));
    }
}
