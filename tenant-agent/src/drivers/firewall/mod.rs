//! nftables rules. Built here as pure values, compared with `tests/golden/nftables/`, and installed whole: each table
//! is replaced in one transaction, so that there is no instant without it.
//!
//! Deliberately absent: rules as text. Addresses and names reach `nft` as JSON values of checked types.

mod bridge;
mod brokers;
mod dhcp;
mod netboot;
mod places;
mod target;
#[cfg(test)]
pub mod testing;
mod vxlan;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use bmi_types::MacAddr;
use nftables::schema::Nftables;
use serde_json::{Value, json};

pub use bridge::{NodePorts, bridge_remove, bridge_table};
pub use brokers::{BrokerPorts, broker_chain, brokers_name, brokers_table};
pub use netboot::{TRANSFER_PORTS, netboot_table};
pub use places::{CONFLICTS, NOTED, PLACES, Place};
pub use target::target_table;
pub use vxlan::{vxlan_name, vxlan_remove, vxlan_table};

/// The table inside a process's namespace.
pub const TABLE: &str = "bmi";

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// They cannot be said in nftables' JSON.
    #[error("building the rules")]
    Build(#[source] serde_json::Error),
    /// The kernel or `nft` refused.
    #[error("installing the rules: {detail}")]
    Install {
        /// What `nft` says.
        detail: String,
        /// Why.
        #[source]
        source: nftables::helper::NftablesError,
    },
}

/// A whole table, ready to install.
#[derive(Debug, Clone)]
pub struct Ruleset(Value);

impl Ruleset {
    /// A table that takes the place of the one with its name.
    fn table(family: &str, name: &str, objects: Vec<Value>) -> Self {
        let table = json!({"table": {"family": family, "name": name}});
        // Adding first makes the deletion work when there is none.
        let mut all = vec![json!({"add": table}), json!({"delete": table}), json!({"add": table})];
        all.extend(objects);
        Self(json!({"nftables": all}))
    }

    /// That there is no such table any more.
    fn removal(family: &str, name: &str) -> Self {
        let table = json!({"table": {"family": family, "name": name}});
        Self(json!({"nftables": [{"add": table}, {"delete": table}]}))
    }

    /// The rules as a person reviews them.
    #[cfg(test)]
    pub fn to_text(&self) -> String {
        let mut lines = String::from("{\"nftables\": [\n");
        let objects = self.0["nftables"].as_array().unwrap();
        for (at, object) in objects.iter().enumerate() {
            lines.push_str("  ");
            lines.push_str(&object.to_string());
            lines.push_str(if at + 1 == objects.len() { "\n" } else { ",\n" });
        }
        lines.push_str("]}\n");
        lines
    }

    /// Puts the table in force in the namespace of the calling thread. Blocks.
    ///
    /// # Errors
    /// When nothing was changed.
    pub fn install(self) -> Result<(), FirewallError> {
        let rules: Nftables<'static> = serde_json::from_value(self.0).map_err(FirewallError::Build)?;
        nftables::helper::apply_ruleset(&rules).map_err(|source| {
            let detail = match &source {
                nftables::helper::NftablesError::NftFailed { stderr, .. } => stderr.trim().to_owned(),
                _ => String::new(),
            };
            FirewallError::Install { detail, source }
        })
    }
}

/// Which MACs a set of a bridge's table has at which places. None when there is no such table. Blocks.
#[must_use]
pub fn macs_at_ports(table: &str, set: &str) -> Option<BTreeSet<(MacAddr, Place)>> {
    let list = ["list", "set", "bridge", table, set];
    let listing = nftables::helper::get_current_ruleset_raw(nftables::helper::DEFAULT_NFT, list.iter());
    Some(places::read(&listing.ok()?))
}

/// The names of the tables of this namespace. None when they cannot be listed. Blocks.
#[must_use]
pub fn tables() -> Option<BTreeSet<String>> {
    let list = ["list", "tables"];
    let listing =
        nftables::helper::get_current_ruleset_raw(nftables::helper::DEFAULT_NFT, list.iter()).ok()?;
    let listing: Value = serde_json::from_str(&listing).ok()?;
    let objects = listing.get("nftables")?.as_array()?.iter();
    let names = objects.filter_map(|object| Some(object.pointer("/table/name")?.as_str()?.to_owned()));
    Some(names.collect())
}

/// How many packets the rules of a table of this namespace dropped, or those of one of its chains. None when there is no
/// such table. Blocks.
#[must_use]
pub fn dropped(family: &str, table: &str, chain: Option<&str>) -> Option<u64> {
    let list = ["list", "table", family, table];
    let listing = nftables::helper::get_current_ruleset_raw(nftables::helper::DEFAULT_NFT, list.iter());
    dropped_in(&listing.ok()?, chain)
}

/// The packets in a listing's counters of rules that drop.
fn dropped_in(listing: &str, chain: Option<&str>) -> Option<u64> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let rules = listing.get("nftables")?.as_array()?.iter().filter_map(|object| object.get("rule"));
    let rules = rules.filter(|rule| chain.is_none_or(|it| rule.get("chain").is_some_and(|of| of == it)));
    let rules = rules.filter_map(|rule| rule.get("expr"));
    let drops =
        rules.filter_map(Value::as_array).filter(|rule| rule.iter().any(|it| it.get("drop").is_some()));
    Some(drops.flatten().filter_map(|it| it.pointer("/counter/packets")?.as_u64()).sum())
}

/// Builds the objects of one table.
struct Table {
    family: &'static str,
    name: Cow<'static, str>,
    objects: Vec<Value>,
}

impl Table {
    const fn new(family: &'static str, name: Cow<'static, str>) -> Self {
        Self { family, name, objects: Vec::new() }
    }

    fn set(&mut self, name: &str, types: &Value, elements: Vec<Value>) {
        let mut set = json!({"family": self.family, "table": self.name, "name": name, "type": types});
        if let (false, Some(set)) = (elements.is_empty(), set.as_object_mut()) {
            set.insert("elem".to_owned(), Value::Array(elements));
        }
        self.objects.push(json!({"add": {"set": set}}));
    }

    /// A set that rules add to: of at most `size` elements, which last for `timeout` or for ever.
    fn set_limited(&mut self, name: &str, of: (&Value, Vec<Value>), size: u32, timeout: Option<Duration>) {
        self.set(name, of.0, of.1);
        let set = self.objects.last_mut().and_then(|object| object.pointer_mut("/add/set"));
        let Some(set) = set.and_then(Value::as_object_mut) else { return };
        set.insert("size".to_owned(), json!(size));
        if let Some(timeout) = timeout {
            set.insert("flags".to_owned(), json!(["timeout"]));
            set.insert("timeout".to_owned(), json!(timeout.as_secs()));
        }
    }

    fn base_chain(&mut self, name: &str, policy: &str) {
        self.objects.push(json!({"add": {"chain": {
            "family": self.family, "table": self.name, "name": name,
            "type": "filter", "hook": name, "prio": 0, "policy": policy,
        }}}));
    }

    /// A chain to which rules lead with [`goto`].
    fn chain(&mut self, name: &str) {
        self.objects
            .push(json!({"add": {"chain": {"family": self.family, "table": self.name, "name": name}}}));
    }

    fn rule(&mut self, chain: &str, expressions: &[Value]) {
        self.objects.push(json!({"add": {"rule": {
            "family": self.family, "table": self.name, "chain": chain, "expr": expressions,
        }}}));
    }

    fn finish(self) -> Ruleset {
        Ruleset::table(self.family, &self.name, self.objects)
    }
}

fn field(protocol: &str, name: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": name}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn concat(parts: &[Value]) -> Value {
    json!({"concat": parts})
}

fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right.into()}})
}

fn is_not(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "!=", "left": left, "right": right.into()}})
}

fn one_of(items: Vec<Value>) -> Value {
    json!({"set": items})
}

fn range(range: bmi_types::Ipv4Range) -> Value {
    json!({"range": [range.first().to_string(), range.last().to_string()]})
}

fn addresses(addresses: &[Ipv4Addr]) -> Vec<Value> {
    addresses.iter().map(|address| json!(address.to_string())).collect()
}

fn state(states: &[&str]) -> Value {
    json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}})
}

fn limit(per_second: u32, burst: u32) -> Value {
    json!({"limit": {"rate": per_second, "per": "second", "burst": burst}})
}

/// Matches what is within a limit of its own for each Ethernet source. One that was silent for `forget` seconds is
/// forgotten, so that the table is not full for good.
fn limit_each(name: &str, per_second: u32, burst: u32, forget: u32) -> Value {
    let key = json!({"elem": {"val": field("ether", "saddr"), "timeout": forget}});
    json!({"meter": {"name": name, "key": key, "stmt": limit(per_second, burst)}})
}

/// Matches a new connection of an address that has more than so many already. Closed ones do not count.
fn connections_above(name: &str, most: u32) -> Value {
    json!({"meter": {"name": name, "key": field("ip", "saddr"), "stmt": {"ct count": {"val": most, "inv": true}}}})
}

fn goto(chain: &str) -> Value {
    json!({"goto": {"target": chain}})
}

fn accept() -> Value {
    json!({"accept": null})
}

/// Dropped, and counted: the counters are how an operator sees that somebody tries.
fn drop_counted() -> [Value; 2] {
    [json!({"counter": null}), json!({"drop": null})]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rules_that_drop_have_counted_is_summed() {
        let rule = |chain: &str, expressions: Value| json!({"rule": {"chain": chain, "expr": expressions}});
        let listing = json!({"nftables": [
            {"metainfo": {}},
            {"table": {"name": "bmi"}},
            rule("a", json!([{"counter": {"packets": 3, "bytes": 9}}, {"drop": null}])),
            rule("a", json!([{"match": {}}, {"counter": {"packets": 100, "bytes": 9}}, {"accept": null}])),
            rule("b", json!([{"match": {}}, {"counter": {"packets": 4, "bytes": 9}}, {"drop": null}])),
        ]});
        let listing = listing.to_string();
        for (chain, sum) in [(None, 7), (Some("a"), 3), (Some("b"), 4), (Some("c"), 0)] {
            assert_eq!(dropped_in(&listing, chain), Some(sum), "{chain:?}");
        }
        assert_eq!(dropped_in("no", None), None);
    }
}
