//! Where a node's MAC is: at the port where it was seen first, for as long as that port is in the bridge. What comes
//! through a VXLAN is at its peer besides: the mark of such a frame is the peer's address (`vxlan`), all others have none.
//!
//! A frame with the MAC from another place is dropped before the bridge learns from it, and noted in `conflicts`, which
//! the driver reads. So a spoofer that the bridge can see gets none of the node's frames: no boot script, no secret, no
//! disk. Kept by the kernel, frame by frame: there is no instant at which a spoofed frame passes because nobody looked.
//!
//! Deliberately absent: forgetting a MAC that is silent. A node that is switched off would be anybody's. Whoever moves
//! a node's cable to another port of the bridge takes the old port out of the bridge for a moment.
//!
//! Invariant: only frames from ports that were found write here, so no other bridge of the host is concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use bmi_types::MacAddr;
use serde_json::{Value, json};

use super::{Table, accept, concat, drop_counted, field, is, meta};

/// Which MAC is where.
pub const PLACES: &str = "places";

/// Which MAC was seen where it is not, lately.
pub const CONFLICTS: &str = "conflicts";

/// How long a conflict is noted: the driver looks every second, and a spoofer that goes on is told of once.
pub const NOTED: Duration = Duration::from_secs(60);

/// The most conflicts noted. More are dropped all the same.
const CONFLICTS_MAX: u32 = 4096;

/// The most MACs with a place: more than the nodes of the largest network have.
const PLACES_MAX: u32 = 65_536 * 2;

/// Where a MAC is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The port of the bridge.
    pub port: String,
    /// The peer behind it, where it is a VXLAN.
    pub peer: Option<Ipv4Addr>,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            None => out.pad(&self.port),
            Some(peer) => out.pad(&format!("{} (peer {peer})", self.port)),
        }
    }
}

impl Place {
    /// A mark is the address as it is in the packet, byte for byte.
    fn of(port: &str, mark: u32) -> Self {
        Self { port: port.to_owned(), peer: (mark != 0).then(|| Ipv4Addr::from(mark.to_ne_bytes())) }
    }

    fn mark(&self) -> u32 {
        self.peer.map_or(0, |peer| u32::from_ne_bytes(peer.octets()))
    }
}

/// Adds the sets, with the places that are known already.
pub fn sets_add(table: &mut Table, node_macs: &BTreeSet<MacAddr>, places: &BTreeMap<MacAddr, Place>) {
    let known = || places.iter().filter(|(mac, _)| node_macs.contains(mac));
    let (ether, ifname) = ("ether_addr", "ifname");
    let here =
        known().map(|(mac, place)| concat(&[json!(mac.to_string()), json!(place.port), json!(place.mark())]));
    table.set_limited(
        "placed",
        (&json!(ether), known().map(|(mac, _)| json!(mac.to_string())).collect()),
        PLACES_MAX,
        None,
    );
    table.set_limited(PLACES, (&json!([ether, ifname, "mark"]), here.collect()), PLACES_MAX, None);
    table.set_limited(CONFLICTS, (&json!([ether, ifname, "mark"]), Vec::new()), CONFLICTS_MAX, Some(NOTED));
}

/// Adds the rules to `prerouting`, behind those for our own MACs. They name the sets of the bridge's table.
pub fn rules_add(table: &mut Table) {
    let source = || field("ether", "saddr");
    let place = || concat(&[source(), meta("iifname"), meta("mark")]);
    let from_nodes = || is(meta("iifname"), "@node_ports");
    let note =
        |what: Value, set: &str| json!({"set": {"op": "update", "elem": what, "set": format!("@{set}")}});
    let add = |what: Value, set: &str| json!({"set": {"op": "add", "elem": what, "set": format!("@{set}")}});
    table.rule("prerouting", &[is(place(), format!("@{PLACES}")), accept()]);
    let elsewhere = [from_nodes(), is(source(), "@placed"), note(place(), CONFLICTS)];
    table.rule("prerouting", &[&elsewhere[..], &drop_counted()].concat());
    let first =
        [from_nodes(), is(source(), "@node_macs"), add(source(), "placed"), add(place(), PLACES), accept()];
    table.rule("prerouting", &first);
}

/// The elements of one of the sets, as `nft -j list set` prints it. What is not understood is left out.
#[must_use]
pub fn read(listing: &str) -> BTreeSet<(MacAddr, Place)> {
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let sets = objects.filter_map(|object| object.get("set")?.get("elem")?.as_array());
    let pair = |element: &Value| {
        // One with a timeout is wrapped.
        let element = element.get("elem").and_then(|element| element.get("val")).unwrap_or(element);
        let parts = element.get("concat")?.as_array()?;
        let mark = u32::try_from(parts.get(2)?.as_u64()?).ok()?;
        Some((parts.first()?.as_str()?.parse().ok()?, Place::of(parts.get(1)?.as_str()?, mark)))
    };
    sets.flatten().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_lists_is_read() {
        let mark = u32::from_ne_bytes([192, 0, 2, 3]);
        let listing = format!(
            r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {{"set": {{"family": "bridge", "name": "places",
            "table": "t", "elem": [{{"concat": ["52:54:00:00:00:01", "tap0", 0]}},
            {{"elem": {{"val": {{"concat": ["52:54:00:00:00:02", "vx0", {mark}]}}, "expires": 59}}}},
            {{"concat": ["x", "y", 0]}}, {{"concat": ["52:54:00:00:00:03", "tap0"]}}]}}}}]}}"#
        );
        let mac = |last: u8| MacAddr::from_octets([0x52, 0x54, 0, 0, 0, last]).unwrap();
        let tap = Place { port: "tap0".to_owned(), peer: None };
        let peer = Place { port: "vx0".to_owned(), peer: Some(Ipv4Addr::new(192, 0, 2, 3)) };
        assert_eq!((tap.mark(), peer.mark()), (0, mark));
        assert_eq!(peer.to_string(), "vx0 (peer 192.0.2.3)");
        assert_eq!(read(&listing), BTreeSet::from([(mac(1), tap), (mac(2), peer)]));
        assert!(read("").is_empty() && read("{}").is_empty());
    }
}
