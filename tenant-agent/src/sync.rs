//! Talking to the control plane: desired state by long poll, status and events by POST. The agent always dials.
//!
//! Each conversation is a task of its own that tries again for ever: the network serves on while the control plane is
//! away. Deliberately absent: anything that acts on the host.

use std::sync::Arc;
use std::time::Duration;

use bmi_agent_api::desired::DesiredState;
use bmi_agent_api::enrol::{AGENT_REFUSED, AGENT_REPLACED, Problem};
use bmi_agent_api::event::{AgentEvent, BATCH_MAX, EventBatch};
use bmi_agent_api::status::{StatusReport, StatusSent};
use bmi_types::{Name, NetworkId, Timestamp, chain};
use reqwest::{Response, StatusCode};
use tokio::sync::{mpsc, watch};

use crate::faults::Faults;
use crate::link::Link;
use crate::patience::Patience;
use crate::trouble::explain;

/// How long one poll waits at the control plane, in seconds.
const WAIT_SECONDS: u64 = 30;

/// How long an answer may take beyond that.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long an answer to a poll may take in all.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(WAIT_SECONDS + TIMEOUT.as_secs());

/// The longest reason of a refusal that is read.
const REASON_LARGEST: usize = 64 * 1024;

/// Pauses after failures: doubled each time, up to the longest. Short enough that a restart is hardly noticed.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// Without news, the status is repeated this often: the control plane sees that the agent lives.
const STATUS_REPEAT: Duration = Duration::from_secs(10);

/// The largest desired state: ten times the largest network.
const DESIRED_LARGEST: usize = 64 * 1024 * 1024;

/// Events kept while the control plane is away. A boot has about ten: this holds the boots of 400 nodes.
pub const EVENTS_KEPT: usize = 4096;

/// How long a batch may wait for more: events come in bursts.
const BATCH_DELAY: Duration = Duration::from_millis(50);

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// No answer.
    #[error("asking the control plane: {}", explain(.0))]
    Request(reqwest::Error),
    /// Another status than the agreed ones.
    #[error("the control plane answers {0}: {1}")]
    Status(StatusCode, String),
    /// This agent may not speak.
    #[error("the control plane refuses this agent: {0}")]
    Refused(String),
    /// Nor ever again: another agent has the network.
    #[error("the control plane refuses this agent: {0}")]
    Replaced(String),
    /// Too long.
    #[error("an answer is longer than {0} bytes")]
    Large(usize),
    /// Not a desired state.
    #[error("reading the desired state")]
    Form(#[from] serde_json::Error),
    /// Older than what the agent has.
    #[error("the desired state is of generation {0}, and the agent has {1} already")]
    Old(u64, u64),
    /// For another network.
    #[error("the desired state is that of network {0}, {1}")]
    Foreign(Name, NetworkId),
}

impl SyncError {
    /// Whether what was answered is no desired state that can be followed, and not only that no answer was had.
    const fn is_of_answer(&self) -> bool {
        matches!(self, Self::Large(_) | Self::Form(_) | Self::Old(..) | Self::Foreign(..))
    }
}

impl From<reqwest::Error> for SyncError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error)
    }
}

/// What there is to do.
#[derive(Debug, Clone)]
pub enum Told {
    /// To make this so.
    Desired(Box<DesiredState>),
    /// To take everything down: another agent has the network, with the same addresses. Also told to one that stands by, which
    /// may have run the network as another agent before.
    Replaced,
}

/// The desired state that the agent has: which generation, of which history.
#[derive(Debug, Default)]
pub struct Known {
    /// Its generation.
    pub generation: u64,
    mark: String,
}

impl Known {
    /// What is known of a state.
    pub fn of(desired: &DesiredState) -> Self {
        Self { generation: desired.generation, mark: desired.mark.clone() }
    }
}

/// The control plane, as this network's agent sees it.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    link: Arc<Link>,
    network: Name,
}

impl ControlPlane {
    /// This network's conversations, by a link.
    #[must_use]
    pub const fn new(link: Arc<Link>, network: Name) -> Self {
        Self { link, network }
    }

    fn url(&self, what: &str) -> String {
        self.link.url(&format!("/agent/v1/networks/{}/{what}", self.network))
    }

    /// Follows the desired state from what is known on, for ever.
    pub async fn desired_follow(self, mut known: Known, to: watch::Sender<Option<Told>>, mut faults: Faults) {
        let mut pause = Patience::new(PAUSE_FIRST, PAUSE_LONGEST);
        loop {
            match self.desired_next(&known).await {
                Ok(Some(desired)) => {
                    pause.reset();
                    faults.note(None);
                    known = Known::of(&desired);
                    let generation = known.generation;
                    tracing::info!(generation, instances = desired.instances.len(), "desired state");
                    to.send_replace(Some(Told::Desired(Box::new(desired))));
                }
                Ok(None) => {
                    pause.reset();
                    faults.note(None);
                    if self.link.stands_by() {
                        known = Known::default();
                        to.send_replace(Some(Told::Replaced));
                    }
                }
                Err(error) => {
                    if matches!(error, SyncError::Replaced(_)) || self.link.is_replaced() {
                        known = Known::default();
                        to.send_replace(Some(Told::Replaced));
                    }
                    if error.is_of_answer() {
                        faults.note(Some(&chain(&error)));
                    }
                    pause.after(&error, "asking for the desired state").await;
                }
            }
        }
    }

    async fn desired_next(&self, known: &Known) -> Result<Option<DesiredState>, SyncError> {
        let Known { generation, mark } = known;
        let url = format!("{}?generation={generation}&mark={mark}&wait={WAIT_SECONDS}", self.url("desired"));
        let answer = self.link.send(|client| client.get(url)).await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::OK => {}
            _ => return Err(refusal(answer).await),
        }
        let desired: DesiredState = serde_json::from_slice(&body(answer, DESIRED_LARGEST).await?)?;
        if desired.network.name != self.network || !self.link.is_ours(desired.network.id) {
            return Err(SyncError::Foreign(desired.network.name, desired.network.id));
        }
        if desired.generation <= *generation {
            return Err(SyncError::Old(desired.generation, *generation));
        }
        Ok(Some(desired))
    }

    async fn post(&self, what: &str, body: &(impl serde::Serialize + Sync)) -> Result<(), SyncError> {
        let url = self.url(what);
        let answer = self.link.send(|client| client.post(url).timeout(TIMEOUT).json(body)).await?;
        if answer.status().is_success() { Ok(()) } else { Err(refusal(answer).await) }
    }

    /// Posts the status whenever it changes, and now and then, for ever.
    pub async fn status_follow(self, mut from: watch::Receiver<Option<StatusReport>>) {
        let mut pause = Patience::new(PAUSE_FIRST, PAUSE_LONGEST);
        loop {
            let report = from.borrow_and_update().clone();
            if let Some(report) = report {
                let sent = StatusSent { report, sent_at: Some(Timestamp::now()) };
                match self.post("status", &sent).await {
                    Ok(()) => pause.reset(),
                    Err(error) => {
                        pause.after(&error, "posting the status").await;
                        continue;
                    }
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(STATUS_REPEAT, from.changed()).await {
                return;
            }
        }
    }

    /// Posts events in batches, oldest first, for ever. A batch is repeated until it is accepted, or until the control
    /// plane says that it never will be (400, 413, 422).
    pub async fn events_follow(self, mut from: mpsc::Receiver<AgentEvent>) {
        let mut pause = Patience::new(PAUSE_FIRST, PAUSE_LONGEST);
        while let Some(batch) = next_batch(&mut from).await {
            loop {
                match self.post("events", &batch).await {
                    Ok(()) => break,
                    Err(SyncError::Status(status, reason)) if matches!(status.as_u16(), 400 | 413 | 422) => {
                        tracing::error!(%status, reason, events = batch.events.len(), "events were refused and are lost");
                        break;
                    }
                    Err(error) => pause.after(&error, "posting events").await,
                }
            }
            pause.reset();
        }
    }
}

/// Why a request was refused.
async fn refusal(answer: Response) -> SyncError {
    let status = answer.status();
    let text = body(answer, REASON_LARGEST).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) if problem.code == AGENT_REFUSED => SyncError::Refused(problem.detail),
        Ok(problem) if problem.code == AGENT_REPLACED => SyncError::Replaced(problem.detail),
        Ok(problem) => SyncError::Status(status, problem.detail),
        Err(_) => SyncError::Status(status, "it does not say why".to_owned()),
    }
}

async fn body(mut answer: Response, largest: usize) -> Result<Vec<u8>, SyncError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > largest {
            return Err(SyncError::Large(largest));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What happened next, and what follows within a moment; nothing when nobody is left to say anything.
async fn next_batch(from: &mut mpsc::Receiver<AgentEvent>) -> Option<EventBatch> {
    let mut events = Vec::new();
    if from.recv_many(&mut events, BATCH_MAX).await == 0 {
        return None;
    }
    if events.len() < BATCH_MAX {
        tokio::time::sleep(BATCH_DELAY).await;
        while events.len() < BATCH_MAX
            && let Ok(event) = from.try_recv()
        {
            events.push(event);
        }
    }
    Some(EventBatch { events })
}

#[cfg(test)]
mod tests {
    use bmi_agent_api::event::{EventSource, HostEvent};

    use super::*;

    #[tokio::test]
    async fn no_event_is_lost_between_batches() {
        let (to, mut from) = mpsc::channel(BATCH_MAX * 2 + 1);
        let event = |number: usize| {
            let said = HostEvent::RulesRestored { table: number.to_string() };
            AgentEvent { at: Timestamp::now(), from: EventSource::Agent { said } }
        };
        // The first waits for others: it is full of them then.
        to.try_send(event(0)).unwrap();
        let (first, ()) = tokio::join!(next_batch(&mut from), async {
            tokio::task::yield_now().await;
            (1..=BATCH_MAX * 2).for_each(|number| to.try_send(event(number)).unwrap());
            drop(to);
        });
        let mut sizes = vec![first.unwrap().events.len()];
        while let Some(batch) = next_batch(&mut from).await {
            sizes.push(batch.events.len());
        }
        assert_eq!(sizes, [BATCH_MAX, BATCH_MAX, 1]);
    }
}
