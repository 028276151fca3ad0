//! The rules inside a target's namespace: its node may reach TCP 3260, and only replies leave.

use std::borrow::Cow;

use serde_json::json;

use super::{Ruleset, TABLE, Table, accept, drop_counted, field, is, one_of, state};
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
    table.rule(
        "input",
        &[
            is(field("ether", "saddr"), one_of(macs)),
            is(field("ip", "saddr"), target.node_address.to_string()),
            is(field("ip", "daddr"), target.address.to_string()),
            is(field("tcp", "dport"), PORT),
            accept(),
        ],
    );
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
    }
}
