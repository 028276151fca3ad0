//! Wiring a process in: its veth pair, its firewall, its address, and the bridge with its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::time::Instant;

use bmi_types::{MacAddr, Segment};
use tokio::task::spawn_blocking;

use super::super::firewall::{self, NodePorts, Place, Ruleset};
use super::super::links::{Link, Links};
use super::super::namespace::within;
use super::super::wires;
use super::record::Run;
use super::{ProcessDriver, ProcessError, network_alias};
use crate::helper::verbs::Said;
use crate::plan::names::{InterfaceName, alias, bridge_table, mac, peer, port};
use crate::plan::spec::{NetworkSpec, ProcessSpec, TargetSpec};

impl ProcessDriver {
    /// Everything between an empty namespace and the order to go.
    pub(in crate::drivers) async fn wire(
        &self,
        spec: &ProcessSpec,
        run: &Run,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), ProcessError> {
        let id = spec.id();
        let bridge = &self.config.bridge;
        let namespace = namespace_of(run).map_err(ProcessError::Namespace)?;
        let host_end = port(bridge, id);
        self.links.veth_make(&host_end, &peer(bridge, id), &alias(id), mac(bridge, id), &namespace).await?;
        let (rules, neighbour) = match spec {
            ProcessSpec::Netboot(netboot) => (firewall::netboot_table(netboot), None),
            ProcessSpec::Target(target) => (firewall::target_table(target), only_mac(target)),
            ProcessSpec::Broker(_) => return Ok(()),
        };
        within(namespace, move || -> Result<(), ProcessError> {
            rules.install()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .map_err(ProcessError::Namespace)?
                .block_on(async { Ok(Links::open()?.inside_ready(address, prefix, neighbour).await?) })
        })
        .await
        .map_err(ProcessError::Namespace)??;
        let index = self.links.bridge_ensure(bridge, &network_alias(&self.config)).await?;
        self.links.port_ensure(&host_end, index).await?;
        self.links.mac_fix(&host_end, mac(bridge, id)).await?;
        Ok(())
    }

    /// Puts the bridge's rules in force for these ports and the node ports found now. The places of MACs that the kernel
    /// has found by itself are kept, as far as their ports are still there.
    ///
    /// What is to join is a node port before it is in the bridge. A place outlives its port's absence only when the port
    /// was not looked for in between.
    pub(super) async fn bridge_rules(
        &self,
        network: &NetworkSpec,
        joining: &BTreeSet<InterfaceName>,
    ) -> Result<(), ProcessError> {
        let found = self.node_ports().await?;
        let seen = self.macs_at_ports(firewall::PLACES).await;
        // Whoever removed the table did not move the nodes.
        let seen = seen.unwrap_or_else(|| self.places.borrow().clone());
        let places = seen.into_iter().filter(|(_, place)| found.contains(&place.port)).collect();
        let names: BTreeSet<String> =
            found.iter().cloned().chain(joining.iter().map(InterfaceName::to_string)).collect();
        let uplink = wires::uplink(&self.config, network.segment).map(String::from);
        let uplink = uplink.filter(|uplink| names.contains(uplink));
        let ports = NodePorts { names, uplink, places };
        install(firewall::bridge_table(&self.config.bridge, network, &ports)).await?;
        *self.node_ports.borrow_mut() = found;
        Ok(())
    }

    /// Which MACs a set of the bridge's table has at which ports. None when there is no such table.
    pub(super) async fn macs_at_ports(&self, set: &'static str) -> Option<BTreeSet<(MacAddr, Place)>> {
        let table = bridge_table(&self.config.bridge);
        spawn_blocking(move || firewall::macs_at_ports(&table, set)).await.ok().flatten()
    }

    /// Says which nodes' MACs were seen in a second place, each once for as long as it goes on.
    pub(super) async fn conflicts_tell(&self) {
        // With one port behind which all nodes are there is nothing to compare, unless it has peers.
        let vxlan = matches!(self.network.borrow().as_ref().map(|it| it.segment), Some(Segment::Vxlan(_)));
        if self.node_ports.borrow().len() < 2 && !vxlan {
            return;
        }
        let seen = self.macs_at_ports(firewall::CONFLICTS).await.unwrap_or_default();
        let mut new = Vec::new();
        {
            // Rules that are replaced forget what they noted; so what was told is kept here.
            let (mut told, now) = (self.conflicts.borrow_mut(), Instant::now());
            told.retain(|_, last| now.saturating_duration_since(*last) < firewall::NOTED);
            new.extend(seen.iter().filter(|conflict| !told.contains_key(*conflict)).cloned());
            told.extend(seen.into_iter().map(|conflict| (conflict, now)));
        }
        if new.is_empty() {
            return;
        }
        let places = self.macs_at_ports(firewall::PLACES).await.unwrap_or_default();
        let places: BTreeMap<_, _> = places.into_iter().collect();
        for (mac, second) in new {
            let place = places.get(&mac).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%mac, place, %second, "a node's MAC was seen in a second place; dropped there");
            let conflict = (mac, second.clone());
            let said = Said::MacConflict { mac, place, second: second.to_string() };
            if self.news.try_send(said).is_err() {
                // Told when there is room.
                self.conflicts.borrow_mut().remove(&conflict);
            }
        }
    }

    /// The bridge's ports that are not ours.
    pub(super) async fn node_ports(&self) -> Result<BTreeSet<String>, ProcessError> {
        let links = self.links.all().await?;
        let Some(bridge) = links.get(self.config.bridge.as_str()).map(|link| link.index) else {
            return Ok(BTreeSet::new());
        };
        let ours = |link: &Link| link.alias.as_deref().is_some_and(|alias| alias.starts_with("bmi:"));
        let others = links.into_iter().filter(|(_, link)| link.controller == Some(bridge) && !ours(link));
        Ok(others.map(|(name, _)| name).collect())
    }
}

/// The network namespace of a run. The waiter may have reaped it already and its number be somebody else's, whose
/// namespace may be the host's: the run is looked at again after the namespace is open, so it is the right one.
pub(super) fn namespace_of(run: &Run) -> io::Result<File> {
    let namespace = File::open(format!("/proc/{}/ns/net", run.pid))?;
    if run.lives() { Ok(namespace) } else { Err(io::Error::other("the launcher ended")) }
}

/// The node as a permanent neighbour, when it has one NIC here and one address, and shows that NIC.
fn only_mac(target: &TargetSpec) -> Option<(std::net::Ipv4Addr, MacAddr)> {
    match (target.macs.as_slice(), target.node_address) {
        ([mac], Some(address)) if target.relays.is_empty() => Some((address, *mac)),
        _ => None,
    }
}

/// Installs rules in the helper's own namespace.
pub(super) async fn install(rules: Ruleset) -> Result<(), ProcessError> {
    match spawn_blocking(move || rules.install()).await {
        Ok(installed) => Ok(installed?),
        Err(error) => Err(ProcessError::Namespace(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_another_process_with_the_same_number_is_not_given() {
        let own = Run::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(namespace_of(&own).is_ok());
        assert!(namespace_of(&Run { start_time: own.start_time + 1, ..own }).is_err());
    }
}
