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
    pub(super) fn publish(&self, report: StatusReport) {
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
                    None if found.is_none() && !wanted && !self.observed.pending.contains(&id) => {
                        ServiceStatus::Absent
                    }
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

    pub(super) fn report(&self) -> StatusReport {
        let desired = self.ledger.desired.iter().flat_map(|desired| &desired.instances);
        let wanted: BTreeSet<InstanceId> = desired.map(|instance| instance.id).collect();
        let found = self.observed.processes.keys().chain(&self.observed.pending);
        let found = found.filter_map(|id| match id {
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
            dropped: self.dropped.clone(),
        }
    }
}

/// A report in the middle of work.
pub(super) trait WithoutNews {
    /// The report without anything that listens now and did not in the last one.
    #[must_use]
    fn without_news(self, last: Option<&StatusReport>) -> Self;
}

impl WithoutNews for StatusReport {
    fn without_news(mut self, last: Option<&Self>) -> Self {
        let listened = |id: InstanceId| {
            let mut known = last.iter().flat_map(|last| &last.instances);
            known.any(|known| known.id == id && known.target == ServiceStatus::Listening)
        };
        for instance in &mut self.instances {
            if instance.target == ServiceStatus::Listening && !listened(instance.id) {
                instance.target = ServiceStatus::Starting;
            }
        }
        let netboot_listened = last.is_some_and(|last| last.netboot == ServiceStatus::Listening);
        if self.netboot == ServiceStatus::Listening && !netboot_listened {
            self.netboot = ServiceStatus::Starting;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_middle_of_work_only_what_has_ended_is_told() {
        let id = |number: u8| format!("0190163d-8694-739b-aea5-0000000000{number:02x}").parse().unwrap();
        let report = |states: &[ServiceStatus]| StatusReport {
            version: String::new(),
            generation_observed: 1,
            netboot: ServiceStatus::Listening,
            instances: (0..)
                .zip(states)
                .map(|(number, target)| InstanceStatus {
                    id: id(number),
                    target: target.clone(),
                    boot_lun: 0,
                })
                .collect(),
            ports: Vec::new(),
            dropped: Vec::new(),
        };
        use ServiceStatus::{Listening, Starting};
        let last = report(&[Listening, Listening, Starting]);
        let now = report(&[Listening, Starting, Listening, Listening]);
        let told = report(&[Listening, Starting, Starting, Starting]);
        assert_eq!(now.clone().without_news(Some(&last)), told);
        let first = now.without_news(None);
        assert_eq!(first.netboot, Starting);
        assert!(first.instances.iter().all(|instance| instance.target == Starting));
    }
}
