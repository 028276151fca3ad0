//! A node as HIL shows it, looked at with our eyes: pure.

use bmi_types::MacAddr;

use super::HilError;
use super::client::{ShownNic, ShownNode};

/// A node there that has all the NICs of the node here.
pub(super) struct View {
    /// HIL's name of it.
    pub(super) name: String,
    shown: ShownNode,
    /// The labels of the NICs that BMI knows.
    ours: Vec<String>,
}

fn mac_of(nic: &ShownNic) -> Option<MacAddr> {
    nic.macaddr.trim().parse().ok()
}

impl View {
    /// Finds each of our NICs. A node that was renamed on one side would be another machine's: its NICs say so.
    pub(super) fn new(name: String, shown: ShownNode, macs: &[MacAddr]) -> Result<Self, HilError> {
        let mut ours = Vec::new();
        for mac in macs {
            let Some(nic) = shown.nics.iter().find(|nic| mac_of(nic) == Some(*mac)) else {
                let found = shown.nics.iter().map(|nic| format!("{} {}", nic.label, nic.macaddr));
                let found = found.collect::<Vec<_>>().join(", ");
                return Err(HilError::NoNic { node: name, mac: mac.to_string(), found });
            };
            ours.push(nic.label.clone());
        }
        Ok(Self { name, shown, ours })
    }

    /// The NICs that BMI knows.
    pub(super) fn nics(&self) -> impl Iterator<Item = &str> {
        self.ours.iter().map(String::as_str)
    }

    /// Whether it is in no project of HIL.
    pub(super) const fn is_free(&self) -> bool {
        self.shown.project.is_none()
    }

    fn is_ours(&self, nic: &ShownNic) -> bool {
        self.ours.contains(&nic.label)
    }

    /// One of our NICs that is not on the network.
    pub(super) fn not_on(&self, network: &str, channel: &str) -> Option<&str> {
        let off = |nic: &&ShownNic| {
            self.is_ours(nic) && nic.networks.get(channel).is_none_or(|attached| attached != network)
        };
        self.shown.nics.iter().find(off).map(|nic| nic.label.as_str())
    }

    /// A NIC, whosever, that is on the network on any channel.
    pub(super) fn on(&self, network: &str) -> Option<&str> {
        let on = |nic: &&ShownNic| nic.networks.values().any(|attached| attached == network);
        self.shown.nics.iter().find(on).map(|nic| nic.label.as_str())
    }

    /// Fails when it is on anything but our NICs on this network and channel.
    pub(super) fn besides(&self, network: &str, channel: &str) -> Result<(), HilError> {
        self.attachments(|nic, on, attached| self.is_ours(nic) && on == channel && attached == network)
    }

    /// Fails when it is on anything.
    pub(super) fn bare(&self) -> Result<(), HilError> {
        self.attachments(|_, _, _| false)
    }

    fn attachments(&self, is_meant: impl Fn(&ShownNic, &str, &str) -> bool) -> Result<(), HilError> {
        let all = self.shown.nics.iter().flat_map(|nic| nic.networks.iter().map(move |it| (nic, it)));
        let others = all.filter(|(nic, (channel, network))| !is_meant(nic, channel, network));
        let places: Vec<String> = others
            .map(|(nic, (channel, network))| format!("`{network}` on {channel} of {}", nic.label))
            .collect();
        match places.is_empty() {
            true => Ok(()),
            false => Err(HilError::Besides { node: self.name.clone(), places: places.join(", ") }),
        }
    }
}
