//! Many simulated agents: each joins by a token, and then says what an agent says (`fleet_agent.rs`) of what happens on a host
//! (`fleet_host.rs`).
//!
//! All of them share one runtime and one thread. Deliberately absent: anything behind what they say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_tests::{AgentKey, Deployment, Member, until};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::fleet_agent::{Simulated, Taken};

/// The longest that the control plane may be behind.
const PATIENCE: Duration = Duration::from_secs(600);

/// All of them.
#[derive(Debug)]
pub(crate) struct Fleet {
    runtime: Runtime,
    agents: Vec<Arc<Simulated>>,
    serving: Vec<JoinHandle<()>>,
    taken: Arc<Taken>,
}

impl Fleet {
    /// Lets one agent join each of these networks, one after another.
    pub(crate) fn join(deployment: &Deployment, networks: &BTreeSet<String>) -> Self {
        let server = deployment.agents_address();
        let nobody = Member::nobody(server, &deployment.api.authority_certificates());
        let taken = Arc::new(Taken::default());
        let agents = networks.iter().map(|network| {
            let (key, token) = (AgentKey::default(), deployment.api.join_token(network));
            let identity = nobody.enrol(&token, network, None, &key.request()).unwrap().expect(200);
            let identity = serde_json::from_value(identity).unwrap();
            Arc::new(Simulated::new(network.clone(), server, identity, key, Arc::clone(&taken)))
        });
        let agents = agents.collect();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, agents, serving: Vec::new(), taken }
    }

    /// Starts all of them at once, with nothing known and new connections, and waits until each has been told what is desired and
    /// has reported. Gives how long that took.
    pub(crate) fn start(&mut self) -> Duration {
        self.stop();
        let begun = Instant::now();
        let (told, mut heard) = mpsc::channel(self.agents.len());
        let serve = |agent: &Arc<Simulated>| self.runtime.spawn(Arc::clone(agent).serve(told.clone()));
        self.serving = self.agents.iter().map(serve).collect();
        drop(told);
        self.runtime.block_on(async {
            for _ in &self.agents {
                heard.recv().await.expect("an agent ended");
            }
        });
        begun.elapsed()
    }

    /// Ends all of them. One that had ended by itself ends the run.
    pub(crate) fn stop(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            if let Err(ended) = self.runtime.block_on(serving)
                && ended.is_panic()
            {
                std::panic::resume_unwind(ended.into_panic());
            }
        }
    }

    /// Whether all of them still work.
    pub(crate) fn assert_alive(&self) {
        assert!(!self.serving.iter().any(JoinHandle::is_finished), "an agent ended");
    }

    /// Waits until every node has booted, and the control plane has all events of that.
    pub(crate) fn settle(&self) {
        until("every event is taken", PATIENCE, || {
            self.assert_alive();
            self.agents.iter().all(|agent| agent.is_settled()).then_some(())
        });
    }

    /// Switches all nodes off and on at once, and waits as [`Self::settle`] does. Gives for each batch of events the seconds from
    /// when the oldest of them happened until the control plane had taken it.
    pub(crate) fn boot(&self) -> Vec<f64> {
        let before = self.taken.batches.lock().unwrap().len();
        self.agents.iter().for_each(|agent| agent.boot());
        self.settle();
        let batches = self.taken.batches.lock().unwrap();
        batches.iter().skip(before).map(|(_, waited)| *waited).collect()
    }

    /// How many events the control plane took, and in how many batches.
    pub(crate) fn events(&self) -> [usize; 2] {
        let batches = self.taken.batches.lock().unwrap();
        [batches.iter().map(|(count, _)| count).sum(), batches.len()]
    }

    /// Of each renewal of a certificate the seconds from request to answer.
    pub(crate) fn renewals(&self) -> Vec<f64> {
        self.taken.renewals.lock().unwrap().clone()
    }
}
