//! The way to the control plane: its URL, and the client that proves who this agent is. By the local socket, whoever may
//! open it is believed; to another host, the agent joins first and renews its certificate for ever.
//!
//! Invariants: a new certificate is in force only once it is on the disk; while the control plane is away, what is asked
//! waits and nothing on this host changes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bmi_agent_api::enrol::{AUTHORITIES_HEADER, JoinToken, STANDING_HEADER};
use bmi_types::{Name, NetworkId, Timestamp, chain};
use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::watch;

use crate::config::Config;
use crate::enrol::{
    EnrolError, Joined, client_builder, client_of, is_replaced, join, key_make, own_key_sha256, renew,
    time_hint, time_there,
};
use crate::identity::{IdentityError, Joining, Kept};
use crate::patience::Patience;
use crate::trouble::{clock_off, is_about_time, right_time};

/// Pauses after a failure to join or to renew: doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// How often whoever waits for approval asks.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The longest sleep before the time of a renewal is looked at again: a clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// How long after a renewal no other follows because of the authorities: replicas may see them a moment apart.
const REST: Duration = Duration::from_secs(5);

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The client.
    #[error("preparing the client")]
    Client(#[from] reqwest::Error),
    /// The files.
    #[error("keeping who this agent is")]
    Identity(#[from] IdentityError),
    /// It has not joined, and has nothing to join with.
    #[error(
        "this agent has not joined: `bmi-agent enrol --token T`, or name a join_token_file in the configuration \
         (`bmi agent token create --network N` makes a token)"
    )]
    NotJoined,
    /// It has joined another network.
    #[error(
        "this agent joined network {0}, and is configured for another one: `bmi-agent enrol --new` joins that"
    )]
    OtherNetwork(Name),
    /// Nothing helps but another token.
    #[error("joining the network")]
    Enrol(#[from] EnrolError),
}

/// The way to the control plane.
#[derive(Debug)]
pub struct Link {
    base: String,
    client: watch::Receiver<Option<Client>>,
    /// Which network the certificate is for.
    network_id: watch::Receiver<Option<NetworkId>>,
    /// What the authorities are known by that the control plane trusts, as it last said.
    mark: watch::Sender<String>,
    clock_told: AtomicBool,
    /// By how many microseconds this host's clock is ahead of the control plane's, where that is worth telling.
    clock_ahead: AtomicI64,
    standing: watch::Sender<String>,
    replaced: watch::Receiver<bool>,
}

/// Whoever keeps the link: joins, and renews.
pub struct Keeper {
    server: String,
    network: Name,
    directory: PathBuf,
    timeout: Duration,
    kept: Option<Kept>,
    token: Option<JoinToken>,
    client: watch::Sender<Option<Client>>,
    network_id: watch::Sender<Option<NetworkId>>,
    replaced: watch::Sender<bool>,
}

impl Link {
    /// The way by the configuration; `directory` holds who this agent is, `token` is what it joins with if it must, and
    /// `timeout` is how long an answer may take.
    ///
    /// # Errors
    /// When there can be none.
    pub fn open(
        config: &Config,
        directory: PathBuf,
        token: Option<JoinToken>,
        timeout: Duration,
    ) -> Result<(Self, Option<Keeper>), LinkError> {
        let (clients, client) = watch::channel(None);
        let (network_ids, network_id) = watch::channel(None);
        let (replacements, replaced) = watch::channel(false);
        let link = |base: String| Self {
            base,
            client,
            network_id,
            mark: watch::channel(String::new()).0,
            clock_told: AtomicBool::new(false),
            clock_ahead: AtomicI64::new(0),
            standing: watch::channel(String::new()).0,
            replaced,
        };
        if let Some(socket) = config.socket() {
            clients.send_replace(Some(client_builder(timeout).unix_socket(socket).build()?));
            // The host is not looked up: the connection is the socket.
            return Ok((link("http://control-plane".to_owned()), None));
        }
        let server = config.server().unwrap_or_default().to_owned();
        let kept = Kept::load(&directory)?;
        match &kept {
            Some(kept) if kept.network != config.network => {
                return Err(LinkError::OtherNetwork(kept.network.clone()));
            }
            None if token.is_none() => return Err(LinkError::NotJoined),
            _ => {}
        }
        let network = config.network.clone();
        let keeper = Keeper {
            server: server.clone(),
            network,
            directory,
            timeout,
            kept: None,
            token,
            client: clients,
            network_id: network_ids,
            replaced: replacements,
        };
        let keeper = match kept {
            Some(kept) => keeper.put_in_force(kept)?,
            None => keeper,
        };
        Ok((link(server), Some(keeper)))
    }

    /// Whether this agent's certificate has expired and the control plane has said that another agent has the network.
    pub fn is_replaced(&self) -> bool {
        *self.replaced.borrow()
    }

    /// A URL of the control plane.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The client, once this agent has joined.
    pub async fn client(&self) -> Client {
        let mut client = self.client.clone();
        let found = client.wait_for(Option::is_some).await.map(|found| found.clone());
        match found {
            Ok(Some(client)) => client,
            // Its keeper has ended, and with it the agent.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whether a network is the one that this agent's certificate is for; by the socket, the name says it.
    pub fn is_ours(&self, network: NetworkId) -> bool {
        self.network_id.borrow().is_none_or(|ours| ours == network)
    }

    /// Whether the last answer said that another agent has the network.
    pub fn stands_by(&self) -> bool {
        *self.standing.borrow() == "standby"
    }

    /// Sends a request, once this agent has joined, and learns what its answer tells beside.
    pub async fn send(
        &self,
        request: impl FnOnce(&Client) -> RequestBuilder + Send,
    ) -> reqwest::Result<Response> {
        let client = self.client().await;
        let sent = request(&client).send().await;
        match &sent {
            Ok(answer) => self.heard(answer),
            // Whether the clock is why, somebody there may say, although nothing can be proved.
            Err(error) if is_about_time(error) => {
                if let Some(there) = time_hint(&self.base).await {
                    self.clock_compare(there);
                }
            }
            Err(_) => {}
        }
        sent
    }

    /// The time at the control plane, as far as it was heard.
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(Timestamp::now().micros() - self.clock_ahead.load(Ordering::Relaxed))
    }

    /// Tells that this host's clock is off, and that it is no more: each once.
    fn clock_compare(&self, there: Timestamp) {
        let here = Timestamp::now();
        let ahead = here.micros() - right_time(here, Some(there)).micros();
        self.clock_ahead.store(ahead, Ordering::Relaxed);
        let off = clock_off(here, there);
        let told = self.clock_told.swap(off.is_some(), Ordering::Relaxed);
        match off {
            Some(said) if !told => tracing::warn!("{said}"),
            None if told => tracing::info!("this host's clock is right again"),
            _ => {}
        }
    }

    /// Learns what an answer tells beside what was asked: the time, the authorities, and who has the network.
    fn heard(&self, answer: &Response) {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(there) = time_there(answer) {
            self.clock_compare(there);
        }
        if let Some(mark) = header(AUTHORITIES_HEADER) {
            self.mark.send_if_modified(|last| {
                let changed = last != mark;
                mark.clone_into(last);
                changed
            });
        }
        if let Some(standing) = header(STANDING_HEADER) {
            let changed = self.standing.send_if_modified(|last| {
                let changed = last != standing;
                standing.clone_into(last);
                changed
            });
            match standing {
                "standby" if changed => tracing::info!("another agent has the network; this one stands by"),
                _ if changed => tracing::info!("this agent has the network"),
                _ => {}
            }
        }
    }
}

impl Keeper {
    /// Puts what is on the disk in force.
    fn put_in_force(mut self, kept: Kept) -> Result<Self, LinkError> {
        let client = client_of(&kept, client_builder(self.timeout))?;
        self.network_id.send_replace(Some(kept.network_id));
        self.replaced.send_replace(false);
        self.client.send_replace(Some(client));
        self.kept = Some(kept);
        Ok(self)
    }

    /// Keeps a new identity, and then puts it in force. One that cannot be used is not kept.
    fn take(self, kept: Kept) -> Result<Self, LinkError> {
        client_of(&kept, client_builder(self.timeout))?;
        kept.save(&self.directory)?;
        self.put_in_force(kept)
    }

    /// Joins, whatever it takes: the control plane may not be there yet, or the key may have to be approved.
    async fn join(self, token: &JoinToken) -> Result<Self, LinkError> {
        let joining = joining(&self.directory)?;
        let kept = join_patiently(&self.server, token, &self.network, &joining).await?;
        self.take(kept)
    }

    /// Joins if need be, and renews, for ever.
    ///
    /// # Errors
    /// When nothing helps but another token, or who this agent is cannot be kept.
    pub async fn follow(self, link: &Link) -> Result<(), LinkError> {
        let mut keeper = match (&self.kept, self.token.clone()) {
            (None, Some(token)) => self.join(&token).await?,
            (Some(kept), Some(token)) if kept.expires_at <= Timestamp::now() => {
                tracing::warn!(expired = %kept.expires_at, "this agent's certificate has expired; it joins again");
                let joining = joining(&self.directory)?;
                // What runs on this host goes on whether it can join or not.
                match join_patiently(&self.server, &token, &self.network, &joining).await {
                    Ok(kept) => self.take(kept)?,
                    Err(error) => {
                        tracing::error!("{}: make another token and `bmi-agent enrol`", chain(&error));
                        self
                    }
                }
            }
            _ => self,
        };
        let mut patience = Patience::new(PAUSE_FIRST, PAUSE_LONGEST);
        let mut next_key = key_make()?;
        loop {
            let Some(kept) = keeper.kept.clone() else { return Err(LinkError::NotJoined) };
            renewal_due(&kept, link).await;
            let client = link.client().await;
            match renew(&keeper.server, &client, &kept, next_key.clone()).await {
                Ok(next) => {
                    next_key = key_make()?;
                    keeper = keeper.take(next)?;
                    let until = keeper.kept.as_ref().map(|kept| kept.expires_at.to_string());
                    tracing::info!(until, "this agent's certificate was renewed");
                    patience.reset();
                    // Of its time to be renewed in, whatever this host's clock says: never one renewal after the other.
                    let left = keeper.kept.as_ref().map(|kept| kept.expires_at.since(kept.renew_at));
                    tokio::time::sleep(REST.min(left.unwrap_or_default() / 2)).await;
                }
                Err(error) => {
                    if kept.expires_at <= link.now() {
                        tracing::error!(
                            expired = %kept.expires_at,
                            "this agent's certificate has expired; make a join token and `bmi-agent enrol`"
                        );
                        // Nothing else can tell it, and another host may serve the same addresses.
                        if let Some(replaced) = is_replaced(&keeper.server, &kept).await {
                            keeper.replaced.send_replace(replaced);
                        }
                    }
                    patience.after(&error, "renewing this agent's certificate").await;
                }
            }
        }
    }
}

/// Waits until a certificate is to be renewed: for its age, or because other authorities count by now.
async fn renewal_due(kept: &Kept, link: &Link) {
    let mut mark = link.mark.subscribe();
    loop {
        let left = kept.renew_at.since(link.now());
        let others = |there: &String| !there.is_empty() && *there != kept.authorities_mark;
        if left.is_zero() || others(&mark.borrow_and_update()) {
            return;
        }
        tokio::time::timeout(left.min(LOOK), mark.changed()).await.ok();
    }
}

/// What this agent joins with: who it is, if it knows that, else who it was when it tried last, else a new key.
///
/// # Errors
/// When it cannot be kept.
pub fn joining(directory: &std::path::Path) -> Result<Joining, LinkError> {
    if let Some(kept) = Kept::load(directory)? {
        return Ok(Joining { agent: Some(kept.agent), key: kept.key });
    }
    if let Some(joining) = Joining::load(directory)? {
        return Ok(joining);
    }
    let joining = Joining { agent: None, key: key_make()? };
    joining.save(directory)?;
    Ok(joining)
}

/// Asks to join until it is so, or nothing but another token helps.
///
/// # Errors
/// When that is so.
pub async fn join_patiently(
    server: &str,
    token: &JoinToken,
    network: &Name,
    joining: &Joining,
) -> Result<Kept, EnrolError> {
    let (mut patience, mut told) = (Patience::new(PAUSE_FIRST, PAUSE_LONGEST), false);
    loop {
        match join(server, token, network, joining).await {
            Ok(Joined::Now(kept)) => {
                tracing::info!(agent.id = %kept.agent, network.name = %network, "this agent has joined");
                return Ok(*kept);
            }
            Ok(Joined::Later(agent)) => {
                if !told {
                    let key = own_key_sha256(&joining.key)?;
                    tracing::warn!(
                        agent.id = %agent,
                        "this key is not the agent's own, and waits for approval: `bmi agent approve {agent} --key {key}`"
                    );
                    told = true;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(error) if !error.may_pass() => return Err(error),
            Err(error) => patience.after(&error, "joining the network").await,
        }
    }
}
