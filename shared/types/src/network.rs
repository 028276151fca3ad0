//! Provisioning networks: their mode, ranges and how the ranges are laid out by default.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// How BMI takes part in DHCP on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DhcpMode {
    /// BMI gives addresses and boot information.
    #[default]
    Authoritative,
    /// Another server gives addresses, BMI adds boot information only.
    Proxy,
    /// BMI does not answer DHCP.
    Off,
}

impl fmt::Display for DhcpMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Authoritative => "authoritative",
            Self::Proxy => "proxy",
            Self::Off => "off",
        })
    }
}

/// What keeps a network apart from others on the same wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Segment {
    /// Nothing: the network has wires of its own, or one tenant has them all.
    #[default]
    None,
    /// An IEEE 802.1Q VLAN, 1 to 4094.
    Vlan(u16),
    /// A VXLAN network identifier (RFC 7348), 1 to 16 777 215.
    Vxlan(u32),
}

impl Segment {
    /// Whether its number is one that there is.
    #[must_use]
    pub const fn is_in_range(self) -> bool {
        match self {
            Self::None => true,
            Self::Vlan(id) => id >= 1 && id <= VLAN_MAX,
            Self::Vxlan(id) => id >= 1 && id <= VXLAN_MAX,
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(out, "none"),
            Self::Vlan(id) => write!(out, "VLAN {id}"),
            Self::Vxlan(id) => write!(out, "VXLAN {id}"),
        }
    }
}

/// The highest number of a VLAN (IEEE 802.1Q: 4095 is reserved).
pub const VLAN_MAX: u16 = 4094;
/// The highest VXLAN network identifier: 24 bits.
pub const VXLAN_MAX: u32 = 16_777_215;

/// The processor architecture of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// AMD64.
    #[default]
    X86_64,
    /// ARMv8 in 64-bit state.
    Aarch64,
}

/// Addresses from the first to the last, both included. Written `10.0.0.10-10.0.0.99`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// A text that is not an address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range such as 10.0.0.10-10.0.0.99, first address first")]
pub struct RangeError(pub String);

impl Ipv4Range {
    /// The range between two addresses, or nothing when they are in the wrong order.
    #[must_use]
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The highest address.
    #[must_use]
    pub const fn last(self) -> Ipv4Addr {
        self.last
    }

    /// Whether an address lies in the range.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(u32::from(self.last) - u32::from(self.first)) + 1
    }

    /// Each address, lowest first.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }
}

impl FromStr for Ipv4Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let fault = || RangeError(text.chars().take(64).collect());
        let (first, last) = text.split_once('-').ok_or_else(fault)?;
        let first = first.trim().parse().map_err(|_| fault())?;
        let last = last.trim().parse().map_err(|_| fault())?;
        Self::new(first, last).ok_or_else(fault)
    }
}

impl TryFrom<String> for Ipv4Range {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<Ipv4Range> for String {
    fn from(range: Ipv4Range) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// Where everything on a network lives. Valid by construction: all inside the network's hosts, nothing overlapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The network.
    pub cidr: Ipv4Net,
    /// The boot services' own address.
    pub netboot_address: Ipv4Addr,
    /// One address per instance's target.
    pub target_range: Ipv4Range,
    /// One address per instance's node.
    pub node_range: Ipv4Range,
    /// Addresses lent to machines without an instance while they wait.
    pub discovery_range: Ipv4Range,
}

/// What is wrong with one part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFault {
    /// The field, as it is called in the API.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// The smallest network: it must hold the boot services and a few of each kind.
const LONGEST_PREFIX: u8 = 27;
/// The most relays of a network: a row of racks. Each has a place in every rule that names them.
pub const RELAYS_MAX: usize = 16;
/// The largest: an address table of this size is still quick to walk.
const SHORTEST_PREFIX: u8 = 16;

impl NetworkPlan {
    /// Checks a plan, filling what was not given from the network's own size: the second address for the boot
    /// services, then a quarter for targets, a half for nodes, and the rest for discovery.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn lay_out(
        cidr: Ipv4Net,
        netboot_address: Option<Ipv4Addr>,
        target_range: Option<Ipv4Range>,
        node_range: Option<Ipv4Range>,
        discovery_range: Option<Ipv4Range>,
    ) -> Result<Self, Vec<PlanFault>> {
        let fault = |field, detail: String| PlanFault { field, detail };
        if cidr.trunc() != cidr {
            let right = cidr.trunc();
            return Err(vec![fault("cidr", format!("{cidr} has host bits set; the network is {right}"))]);
        }
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&cidr.prefix_len()) {
            let detail = format!(
                "the prefix must be /{SHORTEST_PREFIX} to /{LONGEST_PREFIX}, not /{}",
                cidr.prefix_len()
            );
            return Err(vec![fault("cidr", detail)]);
        }
        if !cidr.network().is_private() {
            return Err(vec![fault("cidr", format!("{cidr} is not a private network (RFC 1918)"))]);
        }
        let base = u32::from(cidr.network());
        let size = 1_u32 << (32 - cidr.prefix_len());
        let at = |offset: u32| Ipv4Addr::from(base + offset);
        let range = |first: u32, last: u32| Ipv4Range { first: at(first), last: at(last) };
        let plan = Self {
            cidr,
            netboot_address: netboot_address.unwrap_or(at(2)),
            target_range: target_range.unwrap_or(range(8, size / 4)),
            node_range: node_range.unwrap_or(range(size / 4 + 1, size / 4 * 3)),
            discovery_range: discovery_range.unwrap_or(range(size / 4 * 3 + 1, size - 2)),
        };
        let faults = plan.faults();
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// What is wrong with the addresses of DHCP relays: they are hosts of the network that are nothing else.
    #[must_use]
    pub fn relay_faults(&self, relays: &[Ipv4Addr]) -> Vec<PlanFault> {
        let fault = |detail| PlanFault { field: "relays", detail };
        let mut faults = Vec::new();
        if relays.len() > RELAYS_MAX {
            faults.push(fault(format!("at most {RELAYS_MAX} relays, not {}", relays.len())));
        }
        for (at, relay) in relays.iter().take(RELAYS_MAX).enumerate() {
            let ranges = [self.target_range, self.node_range, self.discovery_range];
            let hosts =
                self.cidr.contains(relay) && ![self.cidr.network(), self.cidr.broadcast()].contains(relay);
            if !hosts {
                faults.push(fault(format!("{relay} is not a host of {}", self.cidr)));
            } else if *relay == self.netboot_address || ranges.iter().any(|range| range.contains(*relay)) {
                faults.push(fault(format!("{relay} is the boot services' address, or in one of the ranges")));
            } else if relays.iter().take(at).any(|earlier| earlier == relay) {
                faults.push(fault(format!("{relay} is there twice")));
            }
        }
        faults
    }

    fn faults(&self) -> Vec<PlanFault> {
        let mut faults = Vec::new();
        let first = u32::from(self.cidr.network()) + 1;
        let last = u32::from(self.cidr.broadcast()) - 1;
        let hosts = Ipv4Range { first: first.into(), last: last.into() };
        let own = Ipv4Range { first: self.netboot_address, last: self.netboot_address };
        let parts = [
            ("netboot_address", own),
            ("target_range", self.target_range),
            ("node_range", self.node_range),
            ("discovery_range", self.discovery_range),
        ];
        for (at, (field, part)) in parts.iter().enumerate() {
            if !hosts.contains(part.first) || !hosts.contains(part.last) {
                let detail = format!("{part} is not inside the hosts of {}: {hosts}", self.cidr);
                faults.push(PlanFault { field, detail });
            }
            for (other, earlier) in parts.iter().take(at) {
                if part.overlaps(*earlier) {
                    faults.push(PlanFault { field, detail: format!("{part} overlaps {other} {earlier}") });
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_layout_is_valid_for_every_allowed_size() {
        for prefix in SHORTEST_PREFIX..=LONGEST_PREFIX {
            let cidr = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
            let plan = NetworkPlan::lay_out(cidr, None, None, None, None).unwrap();
            assert!(plan.target_range.count() >= 1 && plan.node_range.count() > 8, "{plan:?}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let faults = NetworkPlan::lay_out(
            "10.1.0.0/24".parse().unwrap(),
            Some("10.2.0.1".parse().unwrap()),
            Some("10.1.0.10-10.1.0.20".parse().unwrap()),
            Some("10.1.0.20-10.1.0.30".parse().unwrap()),
            Some("10.1.0.250-10.1.0.255".parse().unwrap()),
        )
        .unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["netboot_address", "node_range", "discovery_range"]);
    }

    #[test]
    fn a_relay_is_a_host_that_is_nothing_else() {
        let plan = NetworkPlan::lay_out("10.1.0.0/24".parse().unwrap(), None, None, None, None).unwrap();
        let faults = |relays: &[&str]| {
            plan.relay_faults(&relays.iter().map(|relay| relay.parse().unwrap()).collect::<Vec<_>>()).len()
        };
        assert_eq!(faults(&[]), 0);
        assert_eq!(faults(&["10.1.0.1", "10.1.0.4"]), 0);
        for bad in ["10.2.0.1", "10.1.0.0", "10.1.0.255", "10.1.0.2", "10.1.0.9", "10.1.0.70", "10.1.0.200"] {
            assert_eq!(faults(&[bad]), 1, "{bad}");
        }
        assert_eq!(faults(&["10.1.0.4", "10.1.0.4", "10.2.0.1"]), 2, "all at once");
        assert_eq!(faults(&["10.2.0.1"; 40]), 17, "bounded");
    }
}
