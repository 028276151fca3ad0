//! Rules that are in a network where others have rules too: the bridge's, a VXLAN's and the brokers'.
//!
//! Whoever loads a firewall of the host's own usually begins with `flush ruleset`, as Debian's `/etc/nftables.conf` does,
//! and takes ours away with it: nodes of different tenants could then reach each other, and the host. So it is looked
//! once a second whether our tables are there; what is missing is put in force again and told. Until it was looked a
//! bridge without rules is open.
//!
//! Deliberately absent: looking whether a table's rules are still the same. Whoever changes them means it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use bmi_types::chain;
use tokio::task::spawn_blocking;

use super::broker::{self, network_argument};
use super::record::Record;
use super::{ProcessDriver, ProcessError};
use crate::drivers::firewall::{self, BrokerPorts};
use crate::drivers::links::{LinkError, SEGMENT_ALIAS};
use crate::drivers::namespace::within;
use crate::drivers::segment::device;
use crate::drivers::wires::WireError;
use crate::helper::verbs::Said;
use crate::plan::names::{ProcessId, bridge_table, segment};
use crate::plan::spec::{NetworkSpec, ProcessSpec};

impl ProcessDriver {
    /// Does something in the network in which Ceph is reached.
    pub(super) async fn in_ceph_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let network = network_argument(&self.config);
        if network == Path::new(broker::HOST) {
            return spawn_blocking(work).await.map_err(io::Error::other);
        }
        within(File::open(network)?, work).await
    }

    /// Puts the rules of every broker in force that there is, but one that is about to be removed.
    pub(super) async fn brokers_fence(&self, leaving: Option<ProcessId>) -> Result<(), ProcessError> {
        let _rules = self.rules.lock().await;
        self.brokers_install(leaving).await
    }

    /// What [`Self::brokers_fence`] does, by whoever has the rules.
    async fn brokers_install(&self, leaving: Option<ProcessId>) -> Result<(), ProcessError> {
        let brokers = self.brokers(leaving);
        let table = firewall::brokers_table(self.config.uid_base, &brokers);
        match self.in_ceph_network(move || table.install()).await {
            Ok(installed) => installed?,
            // Rules went with their network.
            Err(error) if leaving.is_some() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProcessError::Namespace(error)),
        }
        self.brokers_fenced.set(!brokers.is_empty());
        Ok(())
    }

    /// The user of each broker, and its ports. A record stands until its process is gone.
    fn brokers(&self, leaving: Option<ProcessId>) -> BrokerPorts {
        let there = self.broker_ids().filter(|id| Some(*id) != leaving);
        let records = there.filter_map(|id| match Record::load(&self.directory(id))?.spec {
            ProcessSpec::Broker(spec) => Some((self.uid(spec.slot), broker::ports(&spec, &self.config))),
            ProcessSpec::Netboot(_) | ProcessSpec::Target(_) => None,
        });
        records.collect()
    }

    fn broker_ids(&self) -> impl Iterator<Item = ProcessId> {
        self.directories().into_iter().filter(|id| matches!(id, ProcessId::Broker(_)))
    }

    /// Looks whether the tables are there, and puts back what is not; by whoever has the rules.
    pub(super) async fn guard(&self) {
        if !self.segment_looked.get() {
            match self.segment_guard().await {
                Ok(()) => self.segment_looked.set(true),
                Err(error) => {
                    tracing::error!(error = chain(&error), "a segment that is not allowed is still there");
                }
            }
        }
        let network = self.network.borrow().clone();
        if let Some(network) = network {
            self.network_guard(network).await;
        }
        if self.broker_ids().next().is_some() {
            self.brokers_guard().await;
        }
    }

    /// Takes a segment away that was made before the host's own file named another one. From then on none is made but that.
    async fn segment_guard(&self) -> Result<(), LinkError> {
        let Some(allowed) = self.config.segment else { return Ok(()) };
        let name = segment(&self.config.bridge);
        let all = self.links.all().await?;
        let alias = all.get(name.as_str()).and_then(|link| link.alias.as_deref());
        let is_ours = alias.is_some_and(|alias| alias.starts_with(SEGMENT_ALIAS));
        let is_allowed = device(&self.config, allowed)
            .ok()
            .flatten()
            .is_some_and(|device| device.is_among(&all).is_some());
        if is_ours && !is_allowed {
            tracing::warn!(link = %name, "the segment is not the one that the configuration allows: it is removed");
            self.links.segment_remove(&name).await?;
        }
        Ok(())
    }

    async fn network_guard(&self, network: NetworkSpec) {
        let mut missing = Vec::new();
        match self.macs_at_ports(firewall::PLACES).await {
            Some(places) => *self.places.borrow_mut() = places,
            None => missing.push(bridge_table(&self.config.bridge)),
        }
        if self.wires.is_fenced() {
            let (name, there) = (firewall::vxlan_name(&self.config.bridge), spawn_blocking(firewall::tables));
            let there = there.await.ok().flatten();
            if there.is_some_and(|there| !there.contains(&name)) {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return;
        }
        // Nothing is looked at first: what would keep a network from being made must not keep it open.
        match self.rules_put(&network).await {
            Ok(()) => missing.into_iter().for_each(|table| self.restored(table)),
            Err(error) => {
                tracing::error!(error = chain(&error), "rules were removed and cannot be put back");
                // It is not in force: the agent makes it again, and tells why it cannot.
                *self.network.borrow_mut() = None;
            }
        }
    }

    async fn rules_put(&self, network: &NetworkSpec) -> Result<(), ProcessError> {
        self.bridge_rules(network, &BTreeSet::new()).await?;
        let device = device(&self.config, network.segment).map_err(WireError::from)?;
        Ok(self.wires.fence(&self.config, device.as_ref()).await?)
    }

    async fn brokers_guard(&self) {
        let (name, known) = (firewall::brokers_name(self.config.uid_base), self.brokers_fenced.get());
        let Ok(Some(there)) = self.in_ceph_network(firewall::tables).await else { return };
        if there.contains(&name) {
            return;
        }
        match self.brokers_install(None).await {
            // One that starts finds those of its predecessor, who may have made none.
            Ok(()) if known => self.restored(name),
            Ok(()) => {}
            Err(error) => tracing::error!(error = chain(&error), "brokers' rules cannot be put in force"),
        }
    }

    fn restored(&self, table: String) {
        tracing::warn!(table, "somebody had removed its rules; they are in force again");
        let _ = self.news.try_send(Said::RulesRestored { table });
    }
}
