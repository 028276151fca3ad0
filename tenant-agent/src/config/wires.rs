//! How the network's segment and its nodes' ports are made on this host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::plan::names::InterfaceName;

/// The port that IANA gave to VXLAN.
const VXLAN_PORT: u16 = 4789;

/// The most peers: each frame for everybody is sent to each of them.
const PEERS_MAX: usize = 256;

/// How a VXLAN segment is made. Its number comes from the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VxlanSection {
    /// This host's own address in the network that carries it.
    pub local: Ipv4Addr,
    /// The interface that leads there; needed with a group. Its MTU, less 50, is the segment's.
    pub device: Option<InterfaceName>,
    /// The other hosts of the segment. Frames from elsewhere are dropped.
    #[serde(default)]
    pub peers: BTreeSet<Ipv4Addr>,
    /// The multicast group of the segment, instead of peers.
    pub group: Option<Ipv4Addr>,
    /// The UDP port.
    #[serde(default = "vxlan_port")]
    pub port: u16,
}

/// How a VLAN segment is made. Its number comes from the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanSection {
    /// The interface that carries it, tagged.
    pub device: InterfaceName,
}

const fn vxlan_port() -> u16 {
    VXLAN_PORT
}

impl VxlanSection {
    /// What cannot work.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match (self.group, self.peers.len()) {
            (None, 1..=PEERS_MAX) => {}
            (None, count) => faults.push(format!("vxlan.peers must be 1 to {PEERS_MAX}, not {count}")),
            (Some(_), 1..) => faults.push("vxlan has a group or peers, not both".to_owned()),
            (Some(group), _) if !group.is_multicast() => {
                faults.push(format!("vxlan.group: {group} is not a multicast address"));
            }
            (Some(_), _) if self.device.is_none() => {
                faults.push("vxlan.device must say which interface leads to the group".to_owned());
            }
            (Some(_), _) => {}
        }
        let host = |address: &Ipv4Addr| {
            !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
        };
        for address in self.peers.iter().chain([&self.local]).filter(|address| !host(address)) {
            faults.push(format!("vxlan: {address} is not the address of a host"));
        }
        if self.peers.contains(&self.local) {
            faults.push("vxlan.peers must not hold this host's own address".to_owned());
        }
        if self.port == 0 {
            faults.push("vxlan.port must not be 0".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vxlan_has_peers_or_a_group() {
        let faults = |text: &str| toml::from_str::<VxlanSection>(text).unwrap().faults().len();
        assert_eq!(faults("local = '192.0.2.1'\npeers = ['192.0.2.2']"), 0);
        assert_eq!(faults("local = '192.0.2.1'\ngroup = '239.1.1.1'\ndevice = 'eth0'"), 0);
        assert_eq!(faults("local = '192.0.2.1'"), 1);
        assert_eq!(faults("local = '192.0.2.1'\ngroup = '239.1.1.1'"), 1);
        assert_eq!(faults("local = '192.0.2.1'\ngroup = '192.0.2.9'\ndevice = 'eth0'"), 1);
        assert_eq!(faults("local = '192.0.2.1'\npeers = ['192.0.2.1', '0.0.0.0']\nport = 0"), 3);
        assert!(toml::from_str::<VxlanSection>("local = '192.0.2.1'\nlearning = true").is_err());
    }
}
