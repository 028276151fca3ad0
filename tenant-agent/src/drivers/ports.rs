//! Ports that lead to one node each: in the network's bridge while the control plane wants them there, else in quarantine,
//! in no bridge and down.
//!
//! Only interfaces that this host's configuration names are touched, whatever is asked for. One that is in another bridge
//! is left there: another agent of this host may have it, and gives it up first.

use std::collections::{BTreeMap, BTreeSet};

use bmi_agent_api::status::{PortPlace, PortStatus};
use rtnetlink::LinkUnspec;

use super::links::{Link, LinkError, Links};
use crate::plan::names::InterfaceName;

/// The ports of this host, which of them are wanted, and the bridge.
#[derive(Debug, Clone, Copy)]
pub struct Ports<'a> {
    /// Those that the configuration names.
    pub known: &'a BTreeSet<InterfaceName>,
    /// Those that are to be in the bridge.
    pub wanted: &'a BTreeSet<InterfaceName>,
    /// The bridge's number.
    pub bridge: Option<u32>,
}

impl Ports<'_> {
    /// Those that are to join: wanted, known, there, and in no bridge.
    pub fn joining<'b>(
        &'b self,
        links: &'b BTreeMap<String, Link>,
    ) -> impl Iterator<Item = &'b InterfaceName> {
        let free = |port: &&InterfaceName| {
            let link = links.get(port.as_str());
            link.is_some_and(|link| {
                link.controller.is_none() || link.controller == self.bridge && !link.is_up
            })
        };
        self.known.intersection(self.wanted).filter(free)
    }

    /// Those that are to leave: known, not wanted, and in our bridge, or up and in none.
    pub fn leaving<'b>(
        &'b self,
        links: &'b BTreeMap<String, Link>,
    ) -> impl Iterator<Item = &'b InterfaceName> {
        let loose = |port: &&InterfaceName| {
            let link = links.get(port.as_str());
            link.is_some_and(|link| match link.controller {
                None => link.is_up,
                own => own == self.bridge,
            })
        };
        self.known.difference(self.wanted).filter(loose)
    }

    /// Where each of them is, for the control plane.
    pub fn places(&self, links: &BTreeMap<String, Link>) -> Vec<PortStatus> {
        let all = self.known.union(self.wanted);
        all.map(|port| PortStatus { interface: port.to_string(), place: self.place(port, links) }).collect()
    }

    fn place(&self, port: &InterfaceName, links: &BTreeMap<String, Link>) -> PortPlace {
        let failed = |reason: &str| PortPlace::Failed { reason: reason.to_owned() };
        let wanted = self.wanted.contains(port);
        match links.get(port.as_str()) {
            _ if !self.known.contains(port) => failed("it is not among the node_ports of this agent"),
            None if wanted => failed("this host has no such interface"),
            None => PortPlace::Quarantined,
            Some(link) => match link.controller {
                Some(index) if Some(index) == self.bridge => match link.is_up {
                    true => PortPlace::Attached,
                    false => failed("it is in the bridge, and down"),
                },
                Some(_) => failed("it is in another bridge"),
                None if link.is_up => failed("it is in no bridge, and up"),
                None => PortPlace::Quarantined,
            },
        }
    }
}

impl Links {
    /// Takes a port out of whichever bridge it is in, and sets it down.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn quarantine(&self, port: &InterfaceName) -> Result<(), LinkError> {
        let Some(link) = self.all().await?.remove(port.as_str()) else { return Ok(()) };
        let request =
            |source| LinkError::Request { doing: "putting into quarantine", link: port.to_string(), source };
        // Down first: in no bridge and up, the host itself would hear it.
        for message in [
            LinkUnspec::new_with_index(link.index).down().build(),
            LinkUnspec::new_with_index(link.index).nocontroller().build(),
        ] {
            self.handle().link().set(message).execute().await.map_err(request)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: u32 = 7;

    fn set(names: &[&str]) -> BTreeSet<InterfaceName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn link(controller: Option<u32>, is_up: bool) -> Link {
        Link { index: 1, alias: None, controller, is_up, mtu: 1500 }
    }

    #[test]
    fn each_port_is_where_it_should_be_or_is_moved_there_or_told() {
        let (known, wanted) = (set(&["a", "b", "c", "d", "e"]), set(&["a", "b", "c", "x"]));
        let ports = Ports { known: &known, wanted: &wanted, bridge: Some(BRIDGE) };
        let links = BTreeMap::from([
            ("a".to_owned(), link(None, false)),
            ("b".to_owned(), link(Some(BRIDGE), true)),
            ("c".to_owned(), link(Some(9), true)),
            ("d".to_owned(), link(Some(BRIDGE), true)),
            ("x".to_owned(), link(None, false)),
        ]);
        assert_eq!(ports.joining(&links).collect::<Vec<_>>(), set(&["a"]).iter().collect::<Vec<_>>());
        assert_eq!(ports.leaving(&links).collect::<Vec<_>>(), set(&["d"]).iter().collect::<Vec<_>>());
        let places = ports.places(&links);
        let place = |name: &str| &places.iter().find(|port| port.interface == name).unwrap().place;
        assert_eq!(place("a"), &PortPlace::Quarantined);
        assert_eq!((place("b"), place("d")), (&PortPlace::Attached, &PortPlace::Attached));
        assert_eq!(place("e"), &PortPlace::Quarantined, "what is not there reaches nobody");
        for (name, word) in [("c", "another bridge"), ("x", "not among the node_ports")] {
            let PortPlace::Failed { reason } = place(name) else { panic!("{name}") };
            assert!(reason.contains(word), "{reason}");
        }
        // A port that somebody set up is set down again, also when the bridge is gone.
        let links = BTreeMap::from([("e".to_owned(), link(None, true))]);
        let gone = Ports { bridge: None, ..ports };
        assert_eq!(gone.leaving(&links).collect::<Vec<_>>(), set(&["e"]).iter().collect::<Vec<_>>());
    }
}
