//! What the agent says exists.

use std::collections::BTreeSet;

use bmi_agent_api::desired::{Backing, DesiredLun};
use bmi_agent_api::status::{InstanceStatus, ServiceStatus, StatusReport};
use bmi_types::InstanceId;

use super::Agent;
use crate::config::Driver;
use crate::plan::Health;
use crate::plan::names::ProcessId;

/// Why stock tgtd gets no volume of Ceph.
const TGT_REFUSES: &str = "its volumes are in Ceph, and the agent's driver is `tgt`: a stock target hears the tenant and \
    would hold the key; it serves local volumes only (`driver = \"process\"` or `\"container\"` serves both)";

impl Agent {
    /// Reports, when something has changed.
    pub(super) fn publish(&self) {
        let report = self.report();
        self.status.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&report);
            *last = Some(report);
            changed
        });
    }

    fn service(&self, id: ProcessId, wanted: bool) -> ServiceStatus {
        match self.observed.processes.get(&id).map(|process| process.health) {
            Some(Health::Listening) => ServiceStatus::Listening,
            found => {
                let failure = self.failures.get(&id).map(|failure| &failure.reason);
                match failure.or(self.network_fault.as_ref().filter(|_| wanted)) {
                    Some(reason) => ServiceStatus::Failed { reason: reason.clone() },
                    None if found.is_none() && !wanted => ServiceStatus::Absent,
                    None => ServiceStatus::Starting,
                }
            }
        }
    }

    /// Why an instance with volumes in Ceph is not served.
    fn ceph_fault(&self, id: InstanceId) -> Option<&'static str> {
        let mut desired = self.ledger.desired.iter().flat_map(|desired| &desired.instances);
        let instance = desired.find(|instance| instance.id == id)?;
        let remote = |lun: &DesiredLun| matches!(lun.backing, Backing::Rbd { .. });
        let is_remote = instance.target.luns.iter().any(remote);
        match self.config.driver {
            Driver::Tgt if is_remote => Some(TGT_REFUSES),
            _ if is_remote && instance.ceph.is_none() => {
                Some("it is not said how to reach its volumes in Ceph")
            }
            _ => None,
        }
    }

    /// An instance's target; when its broker is why it does not serve, that is said.
    fn target_service(&self, id: InstanceId, wanted: bool) -> ServiceStatus {
        let target = self.service(ProcessId::Target(id), wanted);
        match self.service(ProcessId::Broker(id), false) {
            ServiceStatus::Failed { reason } if target != ServiceStatus::Listening => {
                ServiceStatus::Failed { reason: format!("its broker: {reason}") }
            }
            // As long as anything of it is left.
            ServiceStatus::Listening | ServiceStatus::Starting if target == ServiceStatus::Absent => {
                ServiceStatus::Starting
            }
            _ => target,
        }
    }

    fn report(&self) -> StatusReport {
        let desired = self.ledger.desired.iter().flat_map(|desired| &desired.instances);
        let wanted: BTreeSet<InstanceId> = desired.map(|instance| instance.id).collect();
        let found = self.observed.processes.keys().filter_map(|id| match id {
            ProcessId::Target(instance) | ProcessId::Broker(instance) => Some(*instance),
            ProcessId::Netboot => None,
        });
        let all: BTreeSet<InstanceId> = wanted.iter().copied().chain(found).collect();
        let instances = all.into_iter().map(|id| {
            let target = if wanted.contains(&id) && !self.ledger.kept.slots.contains_key(&id) {
                ServiceStatus::Failed { reason: "no user id is free for its target".to_owned() }
            } else if let Some(reason) = self.ceph_fault(id) {
                ServiceStatus::Failed { reason: reason.to_owned() }
            } else {
                self.target_service(id, wanted.contains(&id))
            };
            let found = self.observed.processes.get(&ProcessId::Target(id));
            InstanceStatus { id, target, boot_lun: found.map_or(0, |found| found.lun) }
        });
        let netboot = match &self.network_fault {
            // They may well run: nobody reaches them as it was meant.
            Some(reason) => ServiceStatus::Failed { reason: reason.clone() },
            None => self.service(ProcessId::Netboot, self.ledger.desired.is_some()),
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation_observed: self.generation_observed,
            netboot,
            instances: instances.collect(),
            ports: self.ports.clone(),
        }
    }
}
