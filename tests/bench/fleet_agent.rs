//! One simulated agent: it has joined, and says what an agent says, by mutual TLS on connections of its own. Whatever is desired, it
//! reports at once as listening; it passes on what its host says, and renews its certificate.
//!
//! The conversations are those of the agent's own `sync.rs` and `link.rs`, with the same messages, bounds and order. Deliberately
//! absent: patience. What is refused ends the run.
//!
//! Invariant: whoever is started again is who it was, and its host goes on; all else is forgotten, as with an agent whose ledger has
//! no desired state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmi_agent_api::desired::DesiredState;
use bmi_agent_api::enrol::{AUTHORITIES_HEADER, Identity, RenewRequest};
use bmi_agent_api::event::{AgentEvent, BATCH_MAX, EventBatch};
use bmi_agent_api::status::{InstanceStatus, ServiceStatus, StatusReport, StatusSent};
use bmi_tests::AgentKey;
use bmi_types::Timestamp;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode};
use tokio::sync::{Notify, mpsc, watch};

use crate::fleet_host::Host;

/// As an agent has them: seconds that a poll waits, and between reports without news.
const WAIT_SECONDS: u64 = 30;
const STATUS_REPEAT: Duration = Duration::from_secs(10);
/// The same: events that may wait to be sent, and how long a batch waits for more of them.
const EVENTS_KEPT: usize = 4096;
const BATCH_DELAY: Duration = Duration::from_millis(50);
/// The same: how long after a renewal no other follows.
const REST: Duration = Duration::from_secs(5);
/// How long an answer may take, that to a poll included. An agent has less patience with the others.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a host is looked at that has nothing to say.
const LOOK: Duration = Duration::from_secs(60);

/// Who an agent is, as another one has it on its disk.
#[derive(Debug)]
struct Kept {
    identity: Identity,
    key: AgentKey,
    renew_at: Timestamp,
}

impl Kept {
    fn new(identity: Identity, key: AgentKey) -> Self {
        let renew_at = Timestamp::now().plus(Duration::from_secs(identity.renew_after_s));
        Self { identity, key, renew_at }
    }

    /// A client that proves it, without a connection yet.
    fn client(&self) -> Client {
        let roots = self.identity.authorities.authorities.iter();
        let roots = roots.map(|pem| Certificate::from_pem(pem.as_bytes()).unwrap());
        let pem = format!("{}\n{}", self.identity.certificate, self.key.pem());
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        let builder = Client::builder().no_proxy().timeout(TIMEOUT).tls_certs_only(roots);
        builder.identity(identity).build().unwrap()
    }
}

/// What the control plane took from all agents.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Batches of events: of each how many they were, and seconds from when the oldest happened until it was taken.
    pub(crate) batches: Mutex<Vec<(usize, f64)>>,
    /// Renewals: seconds from request to answer.
    pub(crate) renewals: Mutex<Vec<f64>>,
}

/// An agent.
#[derive(Debug)]
pub(crate) struct Simulated {
    network: String,
    server: SocketAddr,
    kept: Mutex<Kept>,
    client: Mutex<Client>,
    /// What the authorities are known by, as the control plane said last; empty before it did.
    authorities: watch::Sender<String>,
    host: Mutex<Host>,
    /// Rings when the host has something to say.
    bell: Notify,
    /// Events that were passed on and are not taken yet.
    open: AtomicUsize,
    taken: Arc<Taken>,
}

impl Simulated {
    /// The agent of a network that has just joined.
    pub(crate) fn new(
        network: String,
        server: SocketAddr,
        identity: Identity,
        key: AgentKey,
        taken: Arc<Taken>,
    ) -> Self {
        let kept = Kept::new(identity, key);
        Self {
            network,
            server,
            client: Mutex::new(kept.client()),
            kept: Mutex::new(kept),
            authorities: watch::channel(String::new()).0,
            host: Mutex::default(),
            bell: Notify::new(),
            open: AtomicUsize::new(0),
            taken,
        }
    }

    /// Switches every node of its host off and on.
    pub(crate) fn boot(&self) {
        self.host.lock().unwrap().boot(Timestamp::now());
        self.bell.notify_one();
    }

    /// Whether all its nodes run, and the control plane knows everything that was said.
    pub(crate) fn is_settled(&self) -> bool {
        self.host.lock().unwrap().is_quiet() && self.open.load(Ordering::Relaxed) == 0
    }

    /// Works for ever, from nothing known and with new connections; says when the first report was taken.
    pub(crate) async fn serve(self: Arc<Self>, told: mpsc::Sender<()>) {
        let client = self.kept.lock().unwrap().client();
        *self.client.lock().unwrap() = client;
        // Events that waited when the last run ended are lost, as with any agent that is killed.
        self.open.store(0, Ordering::Relaxed);
        let (to_status, status) = watch::channel(None);
        let (to_events, events) = mpsc::channel(EVENTS_KEPT);
        tokio::join!(
            self.desired_follow(to_status),
            self.status_follow(status, told),
            self.host_follow(to_events),
            self.events_follow(events),
            self.identity_follow(),
        );
    }

    fn client(&self) -> Client {
        self.client.lock().unwrap().clone()
    }

    fn url(&self, what: &str) -> String {
        format!("https://{}/agent/v1/networks/{}/{what}", self.server, self.network)
    }

    /// The answer to a request.
    async fn ask(&self, request: RequestBuilder) -> Response {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return answer;
        }
        let why = answer.text().await;
        panic!("{}: {status} {why:?}", self.network);
    }

    /// Follows the desired state.
    async fn desired_follow(&self, to: watch::Sender<Option<StatusReport>>) {
        let (mut generation, mut mark) = (0, String::new());
        loop {
            let query = format!("generation={generation}&mark={mark}&wait={WAIT_SECONDS}");
            let answer = self.ask(self.client().get(self.url(&format!("desired?{query}")))).await;
            if answer.status() == StatusCode::NOT_MODIFIED {
                continue;
            }
            let desired: DesiredState = answer.json().await.unwrap();
            self.host.lock().unwrap().follow(&desired, Timestamp::now());
            self.bell.notify_one();
            to.send_replace(Some(report(&desired)));
            (generation, mark) = (desired.generation, desired.mark);
        }
    }

    /// Reports, whenever there is news and now and then.
    async fn status_follow(&self, mut from: watch::Receiver<Option<StatusReport>>, told: mpsc::Sender<()>) {
        let mut first = Some(told);
        loop {
            let report = from.borrow_and_update().clone();
            if let Some(report) = report {
                let sent = StatusSent { report, sent_at: Some(Timestamp::now()) };
                let answer = self.ask(self.client().post(self.url("status")).json(&sent)).await;
                let mark = answer.headers().get(AUTHORITIES_HEADER).and_then(|mark| mark.to_str().ok());
                if let Some(mark) = mark {
                    self.authorities.send_replace(mark.to_owned());
                }
                if let Some(told) = first.take() {
                    told.send(()).await.ok();
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(STATUS_REPEAT, from.changed()).await {
                return;
            }
        }
    }

    /// Passes on what the host says, when it does.
    async fn host_follow(&self, to: mpsc::Sender<AgentEvent>) {
        loop {
            let next = {
                let mut host = self.host.lock().unwrap();
                let said = host.due(Timestamp::now());
                self.open.fetch_add(said.len(), Ordering::Relaxed);
                // Where an agent would drop events, the run ends.
                said.into_iter().for_each(|event| to.try_send(event).unwrap());
                host.next()
            };
            let left = next.map_or(LOOK, |at| at.since(Timestamp::now()));
            tokio::time::timeout(left, self.bell.notified()).await.ok();
        }
    }

    /// Posts events in batches, oldest first; each until it is taken.
    async fn events_follow(&self, mut from: mpsc::Receiver<AgentEvent>) {
        let mut events = Vec::new();
        while from.recv_many(&mut events, BATCH_MAX).await > 0 {
            if events.len() < BATCH_MAX {
                tokio::time::sleep(BATCH_DELAY).await;
                while events.len() < BATCH_MAX
                    && let Ok(event) = from.try_recv()
                {
                    events.push(event);
                }
            }
            let batch = EventBatch { events: std::mem::take(&mut events) };
            self.ask(self.client().post(self.url("events")).json(&batch)).await;
            let (count, oldest) = (batch.events.len(), batch.events[0].at);
            let waited = Timestamp::now().since(oldest).as_secs_f64();
            self.taken.batches.lock().unwrap().push((count, waited));
            self.open.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Renews the certificate whenever it is time, or other authorities count by now.
    async fn identity_follow(&self) {
        let mut authorities = self.authorities.subscribe();
        loop {
            let (known, left) = {
                let kept = self.kept.lock().unwrap();
                let known = kept.identity.authorities.authorities_mark.clone();
                (known, kept.renew_at.since(Timestamp::now()))
            };
            let others = authorities.wait_for(|mark| !mark.is_empty() && *mark != known);
            drop(tokio::time::timeout(left, others).await);
            self.renew().await;
            tokio::time::sleep(REST).await;
        }
    }

    /// Takes the next certificate, for a new key: kept first, then in force, on new connections.
    async fn renew(&self) {
        let key = AgentKey::default();
        let asked = RenewRequest { request: key.request() };
        let begun = Instant::now();
        let url = format!("https://{}/agent/v1/renew", self.server);
        let answer = self.ask(self.client().post(url).json(&asked)).await;
        let identity: Identity = answer.json().await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        let kept = Kept::new(identity, key);
        let client = kept.client();
        *self.kept.lock().unwrap() = kept;
        *self.client.lock().unwrap() = client;
        self.taken.renewals.lock().unwrap().push(took);
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
