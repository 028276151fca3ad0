//! A simulated agent: it speaks to the same functions as the HTTP layer, and works at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bmi_agent_api::status::{InstanceStatus, ServiceStatus, StatusReport, StatusSent};
use bmi_control_plane::app::{App, Desired, Speaker, agent_status, desired_state};
use bmi_types::{InstanceId, Name};
use tokio::task::JoinHandle;

use crate::simulated::Hardware;

/// Starts the agent of a network; it ends when it is aborted.
pub fn start(app: Arc<App>, network: Name, hardware: Arc<Hardware>) -> JoinHandle<()> {
    let speaker = Speaker::Local(network.clone());
    tokio::spawn(async move {
        let mut known = 0;
        loop {
            let wait = Duration::from_secs(60);
            let news = desired_state(&app, &speaker, network.as_str(), known, "", wait).await;
            let Desired::State(desired) = news.unwrap() else { continue };
            known = desired.generation;
            let wanted: BTreeSet<InstanceId> = desired.instances.iter().map(|instance| instance.id).collect();
            let present = hardware.look().targets;
            // What is made and what is being removed is reported on the way, as a real agent does.
            let touched = wanted.symmetric_difference(&present).map(|id| (*id, ServiceStatus::Starting));
            let kept = wanted.intersection(&present).map(|id| (*id, ServiceStatus::Listening));
            report(&app, &network, known, touched.chain(kept).collect()).await;
            hardware.change(|state| state.targets.clone_from(&wanted));
            let listening = wanted.iter().map(|id| (*id, ServiceStatus::Listening));
            report(&app, &network, known, listening.collect()).await;
        }
    })
}

async fn report(app: &App, network: &Name, generation: u64, targets: Vec<(InstanceId, ServiceStatus)>) {
    let instances =
        targets.into_iter().map(|(id, target)| InstanceStatus { id, target, boot_lun: 0 }).collect();
    let report = StatusReport {
        version: "simulated".to_owned(),
        generation_observed: generation,
        netboot: ServiceStatus::Listening,
        instances,
        ports: Vec::new(),
        dropped: Vec::new(),
    };
    let (speaker, sent) = (Speaker::Local(network.clone()), StatusSent { report, sent_at: None });
    agent_status(app, &speaker, network.as_str(), sent).await.unwrap();
}
