//! Many simulated agents: each joins by a token, and then says what an agent says, by mutual TLS on a connection of its own.
//! Whatever is desired, it reports at once as listening.
//!
//! All of them share one runtime and one thread. Deliberately absent: a host, events of nodes, and patience: what is refused
//! ends the run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_agent_api::desired::DesiredState;
use bmi_agent_api::enrol::Identity;
use bmi_agent_api::status::{InstanceStatus, ServiceStatus, StatusReport, StatusSent};
use bmi_tests::{AgentKey, Deployment, Member};
use bmi_types::Timestamp;
use reqwest::{Certificate, Client, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// As an agent has them: seconds that a poll waits, how long an answer may take beyond that, and between reports without news.
const WAIT_SECONDS: u64 = 30;
const TIMEOUT: Duration = Duration::from_secs(60);
const STATUS_REPEAT: Duration = Duration::from_secs(10);

/// One of them: who it is, and where the control plane listens.
#[derive(Debug)]
struct Simulated {
    network: String,
    identity: Identity,
    key: AgentKey,
    server: SocketAddr,
}

impl Simulated {
    fn client(&self) -> Client {
        let roots = self.identity.authorities.authorities.iter();
        let roots = roots.map(|pem| Certificate::from_pem(pem.as_bytes()).unwrap());
        let pem = format!("{}\n{}", self.identity.certificate, self.key.pem());
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        let builder = Client::builder().no_proxy().timeout(TIMEOUT).tls_certs_only(roots);
        builder.identity(identity).build().unwrap()
    }

    fn url(&self, what: &str) -> String {
        format!("https://{}/agent/v1/networks/{}/{what}", self.server, self.network)
    }

    /// Follows the desired state from nothing on.
    async fn desired_follow(&self, client: &Client, to: watch::Sender<Option<StatusReport>>) {
        let (mut generation, mut mark) = (0, String::new());
        loop {
            let query = format!("generation={generation}&mark={mark}&wait={WAIT_SECONDS}");
            let answer = client.get(self.url(&format!("desired?{query}"))).send().await.unwrap();
            match answer.status() {
                StatusCode::NOT_MODIFIED => {}
                StatusCode::OK => {
                    let desired: DesiredState = answer.json().await.unwrap();
                    to.send_replace(Some(report(&desired)));
                    (generation, mark) = (desired.generation, desired.mark);
                }
                status => panic!("{}: {status} {:?}", self.network, answer.text().await),
            }
        }
    }

    /// Reports, whenever there is news and now and then; says when the first report was taken.
    async fn status_follow(
        &self,
        client: &Client,
        mut from: watch::Receiver<Option<StatusReport>>,
        told: mpsc::Sender<()>,
    ) {
        let mut first = Some(told);
        loop {
            let report = from.borrow_and_update().clone();
            if let Some(report) = report {
                let sent = StatusSent { report, sent_at: Some(Timestamp::now()) };
                let answer = client.post(self.url("status")).json(&sent).send().await.unwrap();
                assert!(answer.status().is_success(), "{}: {:?}", self.network, answer.text().await);
                if let Some(told) = first.take() {
                    told.send(()).await.ok();
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(STATUS_REPEAT, from.changed()).await {
                return;
            }
        }
    }

    /// Everything, as after a start with an empty ledger.
    async fn serve(self: Arc<Self>, told: mpsc::Sender<()>) {
        let client = self.client();
        let (to, from) = watch::channel(None);
        tokio::join!(self.desired_follow(&client, to), self.status_follow(&client, from, told));
    }
}

/// What an agent reports that has carried out a desired state.
fn report(desired: &DesiredState) -> StatusReport {
    let instances = desired.instances.iter();
    StatusReport {
        version: "simulated".to_owned(),
        generation_observed: desired.generation,
        netboot: ServiceStatus::Listening,
        instances: instances
            .map(|it| InstanceStatus { id: it.id, target: ServiceStatus::Listening, boot_lun: 0 })
            .collect(),
        ports: Vec::new(),
        dropped: Vec::new(),
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Fleet {
    runtime: Runtime,
    agents: Vec<Arc<Simulated>>,
    serving: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Lets one agent join each of these networks, one after another.
    pub(crate) fn join(deployment: &Deployment, networks: &BTreeSet<String>) -> Self {
        let server = deployment.agents_address();
        let nobody = Member::nobody(server, &deployment.api.authority_certificates());
        let agents = networks.iter().map(|network| {
            let (key, token) = (AgentKey::default(), deployment.api.join_token(network));
            let identity = nobody.enrol(&token, network, None, &key.request()).unwrap().expect(200);
            let identity = serde_json::from_value(identity).unwrap();
            Arc::new(Simulated { network: network.clone(), identity, key, server })
        });
        let agents = agents.collect();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, agents, serving: Vec::new() }
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

    /// Ends all of them.
    pub(crate) fn stop(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            let _ = self.runtime.block_on(serving);
        }
    }
}
