//! The rules inside a target's namespace: its node may reach TCP 3260, and only replies leave.
//!
//! A node whose address another server gives may have any of the node range; one behind a relay comes with the MAC of a
//! router. Either is weaker than both together.

use std::borrow::Cow;

use serde_json::json;

use super::{Ruleset, TABLE, Table, accept, drop_counted, field, is, one_of, range, state};
use crate::plan::spec::TargetSpec;

/// iSCSI (RFC 7143 section 4.2.7.1).
const PORT: u16 = 3260;

/// The table of a target.
#[must_use]
pub fn target_table(target: &TargetSpec) -> Ruleset {
    let mut table = Table::new("inet", Cow::Borrowed(TABLE));
    let macs = target.macs.iter().map(|mac| json!(mac.to_string())).collect();
    table.base_chain("input", "drop");
    table.rule("input", &[state(&["established"]), accept()]);
    let address = match target.node_address {
        Some(address) => json!(address.to_string()),
        None => one_of(vec![range(target.plan.node_range)]),
    };
    let node = [
        is(field("ip", "saddr"), address),
        is(field("ip", "daddr"), target.address.to_string()),
        is(field("tcp", "dport"), PORT),
        accept(),
    ];
    if target.relays.is_empty() {
        let own_mac = is(field("ether", "saddr"), one_of(macs));
        table.rule("input", &[&[own_mac][..], &node].concat());
    } else {
        table.rule("input", &node);
    }
    table.rule("input", &drop_counted());
    table.base_chain("output", "drop");
    table.rule("output", &[state(&["established"]), accept()]);
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
        testing::golden("target.json", &target_table(&testing::target(1)));
        let any = TargetSpec { node_address: None, ..testing::target(1) };
        testing::golden("target-proxy.json", &target_table(&any));
        let relayed = TargetSpec { relays: vec![testing::relay()], ..testing::target(1) };
        testing::golden("target-relays.json", &target_table(&relayed));
    }
}
