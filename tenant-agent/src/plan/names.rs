//! Names derived from ids, so that whoever repeats a step finds its own leftovers.

use std::fmt;
use std::str::FromStr;

use bmi_types::{InstanceId, MacAddr};
use serde::{Deserialize, Serialize};

/// The kernel's IFNAMSIZ is 16 with the final zero.
const INTERFACE_LONGEST: usize = 15;

/// The name of a network interface: 1 to 15 of letters, digits, `.`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// A text that is no interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an interface: 1 to 15 of letters, digits, `.`, `-` and `_`")]
pub struct InterfaceNameError(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !clean || text.is_empty() || text.len() > INTERFACE_LONGEST || text.starts_with('.') {
            return Err(InterfaceNameError(text.chars().take(64).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(text: String) -> Result<Self, InterfaceNameError> {
        text.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// A process the agent keeps. Its text is the name of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProcessId {
    /// The network's boot services.
    Netboot,
    /// The target of one instance.
    Target(InstanceId),
    /// The broker of one instance, whose volumes are in Ceph. It comes after the target: what is stopped goes in that
    /// order.
    Broker(InstanceId),
}

/// What the name of a broker begins with.
const BROKER: &str = "broker-";

impl FromStr for ProcessId {
    type Err = bmi_types::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(BROKER) {
            Some(instance) => instance.parse().map(Self::Broker),
            None if text == "netboot" => Ok(Self::Netboot),
            None => text.parse().map(Self::Target),
        }
    }
}

impl TryFrom<String> for ProcessId {
    type Error = bmi_types::ParseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProcessId> for String {
    fn from(id: ProcessId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netboot => out.pad("netboot"),
            Self::Target(instance) => out.pad(&instance.to_string()),
            Self::Broker(instance) => out.pad(&format!("{BROKER}{instance}")),
        }
    }
}

/// FNV-1a over the bridge and the process, and a final mix so that ids that differ in their last digit differ all over.
/// With the bridge in it, two agents on one host do not share a name.
fn hash(bridge: &InterfaceName, id: ProcessId) -> u64 {
    digest(&format!("{bridge}/{id}"))
}

/// A number for a text.
#[must_use]
pub fn digest(text: &str) -> u64 {
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

fn twelve(bridge: &InterfaceName, id: ProcessId) -> String {
    format!("{:012x}", hash(bridge, id) >> 16)
}

/// The bridge's end of a process's veth pair.
#[must_use]
pub fn port(bridge: &InterfaceName, id: ProcessId) -> InterfaceName {
    InterfaceName(format!("bt{}", twelve(bridge, id)))
}

/// The process's end, until it is moved into its namespace and called `eth0`.
#[must_use]
pub fn peer(bridge: &InterfaceName, id: ProcessId) -> InterfaceName {
    InterfaceName(format!("bp{}", twelve(bridge, id)))
}

/// The device of the segment of a bridge.
#[must_use]
pub fn segment(bridge: &InterfaceName) -> InterfaceName {
    InterfaceName(format!("bs{:012x}", digest(&format!("{bridge}/segment")) >> 16))
}

/// The process's Ethernet address: locally administered, the same after every restart.
#[must_use]
pub fn mac(bridge: &InterfaceName, id: ProcessId) -> [u8; 6] {
    let [_, _, _, b, c, d, e, f] = hash(bridge, id).to_be_bytes();
    [0x02, b, c, d, e, f]
}

/// [`mac`] as text.
#[must_use]
pub fn mac_text(bridge: &InterfaceName, id: ProcessId) -> String {
    MacAddr::from_octets(mac(bridge, id)).map(String::from).unwrap_or_default()
}

/// The alias of a veth pair: whose it is.
#[must_use]
pub fn alias(id: ProcessId) -> String {
    format!("bmi:{id}")
}

/// The process that an alias names.
#[must_use]
pub fn process_of_alias(alias: &str) -> Option<ProcessId> {
    alias.strip_prefix("bmi:")?.parse().ok()
}

/// The bridge family table of a bridge.
#[must_use]
pub fn bridge_table(bridge: &InterfaceName) -> String {
    let clean: String = bridge.0.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("bmi_{clean}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_are_stable_distinct_and_short_enough() {
        let bridge: InterfaceName = "bmi0".parse().unwrap();
        let other: InterfaceName = "bmi1".parse().unwrap();
        let id = ProcessId::Target("0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap());
        assert_eq!(port(&bridge, id), port(&bridge, id));
        assert_ne!(port(&bridge, id), port(&other, id));
        assert_ne!(port(&bridge, id), port(&bridge, ProcessId::Netboot));
        assert!(port(&bridge, id).as_str().parse::<InterfaceName>().is_ok());
        assert!(mac_text(&bridge, id).starts_with("02:"));
        assert_eq!(process_of_alias(&alias(id)), Some(id));
        assert_eq!(process_of_alias("bmi:provisioning"), None, "a network's");
    }

    #[test]
    fn a_process_id_is_one_path_component() {
        assert_eq!("netboot".parse(), Ok(ProcessId::Netboot));
        let broker = ProcessId::Broker("0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap());
        assert_eq!(broker.to_string().parse(), Ok(broker));
        for bad in ["", "..", "a/b", "Netboot", "broker-", "broker-netboot"] {
            assert!(bad.parse::<ProcessId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_interface_is_refused() {
        for bad in ["", "a b", "eth0/x", "0123456789abcdef", "..", ".", "é"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
    }
}
