//! What brokers may send, in the network in which Ceph is reached: TCP to the ports of monitors and OSDs, and nothing else.
//!
//! That network is the host's, or one that others use too; so a packet is a broker's by the user that made its socket
//! (`meta skuid`), and what is nobody's of these users is not looked at. Landlock says the same of ports where the kernel
//! knows them (Linux 6.7), for TCP alone.
//!
//! Invariant: a packet without a socket's user (a reset by the kernel, the last packet of a closed connection) matches
//! nothing here, and passes: the connection it belongs to was let through.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Ruleset, Table, accept, drop_counted, field, goto, is, meta, one_of};

/// The ports a user's broker may connect to: from the first to the last.
pub type BrokerPorts = BTreeMap<u32, Vec<(u16, u16)>>;

/// What the table of an agent's brokers is called: after its users, which no other agent of the machine has, while two of
/// them may reach Ceph through one network.
#[must_use]
pub fn brokers_name(uid_base: u32) -> String {
    format!("bmi_brokers_{uid_base}")
}

/// The chain of a user's broker.
#[must_use]
pub fn broker_chain(uid: u32) -> String {
    format!("user_{uid}")
}

/// The table of an agent's brokers; its removal when there are none.
#[must_use]
pub fn brokers_table(uid_base: u32, brokers: &BrokerPorts) -> Ruleset {
    let name = brokers_name(uid_base);
    if brokers.is_empty() {
        return Ruleset::removal("inet", &name);
    }
    let mut table = Table::new("inet", Cow::Owned(name));
    for (uid, ports) in brokers {
        let chain = broker_chain(*uid);
        table.chain(&chain);
        let ports = merged(ports)
            .into_iter()
            .map(|(first, last)| if first == last { json!(first) } else { json!({"range": [first, last]}) });
        table.rule(&chain, &[is(field("tcp", "dport"), one_of(ports.collect())), accept()]);
        table.rule(&chain, &drop_counted());
    }
    table.base_chain("output", "accept");
    let chains: Vec<Value> = brokers.keys().map(|uid| json!([uid, goto(&broker_chain(*uid))])).collect();
    table.rule("output", &[json!({"vmap": {"key": meta("skuid"), "data": one_of(chains)}})]);
    table.finish()
}

/// The same ports without any twice: a set in the kernel has none that overlap.
fn merged(ports: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn the_rules_are_as_reviewed() {
        let monitors = [(3300, 3300), (6789, 6789)];
        let one = [&monitors[..], &[(6800, 7300)]].concat();
        let other = [&monitors[..], &[(3300, 3300), (7301, 7568), (6800, 7300)]].concat();
        let brokers = BTreeMap::from([(310_005, one), (310_007, other)]);
        testing::golden("brokers.json", &brokers_table(310_000, &brokers));
        testing::golden("brokers-none.json", &brokers_table(310_000, &BTreeMap::new()));
    }

    #[test]
    fn ports_are_named_once() {
        assert_eq!(merged(&[(5, 9), (1, 3), (4, 4), (7, 8), (20, 20)]), [(1, 9), (20, 20)]);
        assert_eq!(merged(&[(1, 65_535), (65_535, 65_535)]), [(1, 65_535)]);
        assert!(merged(&[]).is_empty());
    }
}
