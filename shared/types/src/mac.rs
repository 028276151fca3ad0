//! Ethernet addresses of node NICs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A unicast Ethernet address (EUI-48). Written as six lower-case pairs with colons, whatever spelling was read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

/// Why a text or six octets are not the address of one NIC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// None of the spellings in use.
    #[error("`{0}` is not a MAC address such as 52:54:00:12:34:56")]
    Form(String),
    /// 00:00:00:00:00:00.
    #[error("the MAC address is all zero")]
    Zero,
    /// ff:ff:ff:ff:ff:ff.
    #[error("the MAC address is the broadcast address")]
    Broadcast,
    /// The group bit (IEEE 802-2014 section 8.2.2) is set.
    #[error("the MAC address is a multicast address")]
    Multicast,
}

impl MacAddr {
    /// Accepts the octets of one NIC's address.
    ///
    /// # Errors
    /// Zero, broadcast and multicast addresses.
    pub fn from_octets(octets: [u8; 6]) -> Result<Self, MacError> {
        match octets {
            [0, 0, 0, 0, 0, 0] => Err(MacError::Zero),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Err(MacError::Broadcast),
            [first, ..] if first & 1 == 1 => Err(MacError::Multicast),
            unicast => Ok(Self(unicast)),
        }
    }

    /// The six octets, in the order they go over the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    /// Reads `52:54:00:12:34:56`, `52-54-00-12-34-56`, `5254.0012.3456` and `525400123456`, in either case.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.chars().take(64).collect());
        let groups: Vec<&str> = match text.len() {
            17 if text.contains(':') => text.split(':').collect(),
            17 => text.split('-').collect(),
            14 => text.split('.').collect(),
            12 => vec![text],
            _ => return Err(form()),
        };
        let each = match groups.len() {
            6 => 2,
            3 => 4,
            1 => 12,
            _ => return Err(form()),
        };
        if groups.iter().any(|group| group.len() != each || !group.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(form());
        }
        let value = u64::from_str_radix(&groups.concat(), 16).map_err(|_| form())?;
        let [_, _, octets @ ..] = value.to_be_bytes();
        Self::from_octets(octets)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_the_same_address() {
        for spelling in
            ["52:54:00:AB:cd:01", "52-54-00-ab-CD-01", "5254.00ab.cd01", "525400ABCD01", "525400abcd01"]
        {
            assert_eq!(spelling.parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:cd:01", "{spelling}");
        }
    }

    #[test]
    fn what_is_no_nic_is_refused() {
        assert_eq!("00:00:00:00:00:00".parse::<MacAddr>(), Err(MacError::Zero));
        assert_eq!("ff-ff-ff-ff-ff-ff".parse::<MacAddr>(), Err(MacError::Broadcast));
        assert_eq!("01005e000001".parse::<MacAddr>(), Err(MacError::Multicast));
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:0g",
            "52:54-00:ab:cd:01",
            "+25400abcd01",
            "5254.00ab.cd1.",
            "é2:54:00:ab:cd:1",
        ] {
            assert!(matches!(bad.parse::<MacAddr>(), Err(MacError::Form(_))), "{bad}");
        }
    }
}
