//! Wiring a process in: its veth pair, its firewall, its address, and the bridge with its rules.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use tokio::task::spawn_blocking;

use super::super::firewall::{self, Ruleset};
use super::super::links::{Link, Links};
use super::super::namespace::within;
use super::{ProcessDriver, ProcessError, network_alias};
use crate::plan::names::{alias, mac, peer, port};
use crate::plan::spec::{NetworkSpec, ProcessSpec, TargetSpec};

impl ProcessDriver {
    /// Everything between an empty namespace and the order to go.
    pub(super) async fn wire(&self, spec: &ProcessSpec, pid: i32) -> Result<(), ProcessError> {
        let id = spec.id();
        let bridge = &self.config.bridge;
        // Opened once: our child is not reaped while we hold it, so the number cannot be somebody else's.
        let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(ProcessError::Namespace)?;
        let host_end = port(bridge, id);
        self.links.veth_make(&host_end, &peer(bridge, id), &alias(id), mac(bridge, id), &namespace).await?;
        let (rules, neighbour) = match spec {
            ProcessSpec::Netboot(netboot) => (firewall::netboot_table(netboot), None),
            ProcessSpec::Target(target) => (firewall::target_table(target), only_mac(target)),
        };
        let (address, prefix) = (spec.address(), spec.plan().cidr.prefix_len());
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
        Ok(())
    }

    /// Puts the bridge's rules in force for these ports and the node ports found now.
    pub(super) async fn bridge_rules(&self, network: &NetworkSpec) -> Result<(), ProcessError> {
        let node_ports = self.node_ports().await?;
        let rules = firewall::bridge_table(&self.config.bridge, network, &node_ports);
        install(rules).await?;
        *self.node_ports.borrow_mut() = node_ports;
        Ok(())
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

/// The node as a permanent neighbour, when it has one NIC here and so cannot appear under another MAC.
fn only_mac(target: &TargetSpec) -> Option<(std::net::Ipv4Addr, bmi_types::MacAddr)> {
    match target.macs.as_slice() {
        [mac] => Some((target.node_address, *mac)),
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
