//! How an agent joins a network, and how it renews its certificate.
//!
//! Invariants: a token is burned in the transaction that issues the certificate; an agent's id is chosen here and stays
//! with its key: somebody with a token who wants another key for an id that exists gets nothing until that is approved,
//! and the agent that has it notices nothing.

use std::time::Duration;

use bmi_agent_api::enrol::{Authorities, EnrolRequest, Identity, Pending, RenewRequest, StandingRequest};
use bmi_api::{Code, Fault};
use bmi_auth::audit::{self, Object, Outcome};
use bmi_auth::authority::{Issued, KeyRequest};
use bmi_auth::secret_token::{self, TokenKind};
use bmi_auth::{Action, MasterKey, SpiffeId};
use bmi_db::enrolled_agent::{Record, Standing};
use bmi_db::join_token::Use;
use bmi_db::{SystemTx, authority, enrolled_agent, join_token};
use bmi_types::{AgentId, NetworkId, Timestamp};
use uuid::Uuid;

use super::authority::{Enrolling, no_agents, open, settled, told};
use super::network_timeline::agent_event;
use super::speaker::Peer;
use super::{App, network, network_timeline, speaker};
use crate::error::AppError;

/// How long whoever lost the answer is told the same again.
const ANSWERED_AGAIN: Duration = Duration::from_secs(10 * 60);
/// How long an agent whose key waits for approval may ask for the outcome with its token.
const PENDING_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest version that an agent says it is, in characters.
const VERSION_MAX: usize = 64;
/// The longest that the key before counts after the new one was used first: what was on its way arrives.
const PREVIOUS_FOR: Duration = Duration::from_secs(60);

/// The event of a key that waits for approval.
const KEY_PENDING: &str = "agent.key-pending";

/// The same, where certificates do not last long.
pub(super) fn previous_for(enrolling: &Enrolling) -> Duration {
    PREVIOUS_FOR.min(enrolling.certificate_life / 10)
}

/// What an agent that wants to join is told.
#[derive(Debug)]
pub enum Joined {
    /// It has.
    Now(Box<Identity>),
    /// Its key waits for approval.
    Later(Pending),
}

fn refused(detail: impl Into<String>) -> AppError {
    AppError::refused(Code::JoinTokenRefused, detail)
}

fn key_of(request: &str) -> Result<KeyRequest, AppError> {
    KeyRequest::read(request).map_err(|error| {
        AppError::invalid(vec![Fault { field: "request".to_owned(), detail: error.to_string() }])
    })
}

/// What issues here.
struct Issuing {
    enrolling: Enrolling,
    master_key: MasterKey,
}

impl Issuing {
    fn of(app: &App) -> Result<Self, AppError> {
        let enrolling = app.enrolling.clone().ok_or_else(no_agents)?;
        Ok(Self { enrolling, master_key: app.master_key.clone() })
    }

    /// Issues an agent's certificate, and writes into its record who did.
    fn issue(
        &self,
        tx: &mut SystemTx<'_>,
        agent: &mut Record,
        key: &KeyRequest,
        now: Timestamp,
    ) -> Result<Issued, AppError> {
        let records = settled(authority::list(tx)?, now);
        let newest = records.last().ok_or_else(no_agents)?;
        let trust_domain = self.enrolling.trust_domain.clone();
        let id = SpiffeId { trust_domain, network: agent.network, agent: agent.id };
        let issued = open(&self.master_key, newest)?
            .issue_agent(key, &id, now, self.enrolling.certificate_life)
            .map_err(|error| AppError::Defect(bmi_types::chain(&error)))?;
        agent.authority = newest.id;
        agent.certificate_until = issued.expires_at;
        Ok(issued)
    }

    /// What an agent is told that has a certificate.
    fn identity(
        &self,
        tx: &mut SystemTx<'_>,
        agent: &Record,
        certificate: String,
        now: Timestamp,
    ) -> Result<Identity, AppError> {
        let left = agent.certificate_until.since(now).as_secs();
        Ok(Identity {
            agent: agent.id,
            network: agent.network,
            certificate,
            lasts_s: left,
            renew_after_s: left * 2 / 3,
            authorities: told(&settled(authority::list(tx)?, now)),
        })
    }
}

/// Writes into the audit log, and the network's timeline, what an agent did.
fn noted(
    tx: &mut SystemTx<'_>,
    actor: String,
    agent: &Record,
    (event, detail): (&str, &str),
) -> Result<(), AppError> {
    agent_event(tx, agent.network, agent.id, event, [("reason", detail.to_owned())])?;
    let record = audit::Record {
        id: Uuid::now_v7(),
        at: Timestamp::now(),
        actor,
        project: None,
        action: Action::AgentEnrol.to_string(),
        object: Some(Object {
            kind: "agent".to_owned(),
            id: agent.id.to_string(),
            name: agent.network.to_string(),
        }),
        outcome: Outcome::Done,
        request: String::new(),
        detail: detail.to_owned(),
    };
    Ok(bmi_db::audit::insert(tx, &record)?)
}

/// A new agent of a network: the first has it, one that comes later stands by. So does the first after one that was revoked,
/// where there are instances: that one may still have their disks open, and `replace` is what fences it.
fn newcomer(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    key_sha256: &str,
    version: String,
    now: Timestamp,
) -> Result<Record, AppError> {
    let has = |tx: &mut SystemTx<'_>, standing| {
        Ok::<_, AppError>(!enrolled_agent::of_network(tx, network, standing)?.is_empty())
    };
    let taken = has(tx, Standing::Active)?
        || has(tx, Standing::Revoked)? && !bmi_db::instance::desired(tx, network)?.is_empty();
    Ok(Record {
        id: AgentId::generate(),
        network,
        standing: if taken { Standing::Standby } else { Standing::Active },
        key_sha256: key_sha256.to_owned(),
        previous_key_sha256: None,
        previous_until: None,
        pending_key_sha256: None,
        authority: Uuid::nil().into(),
        certificate_until: now,
        agent_version: version,
        clock_ahead_ms: None,
        enrolled_at: now,
        last_seen: now,
        version: 1,
    })
}

/// Answers an agent that asks with a token that it has used already.
fn again(
    tx: &mut SystemTx<'_>,
    issuing: &Issuing,
    token: &join_token::Record,
    used: &Use,
    key: &KeyRequest,
    now: Timestamp,
) -> Result<Joined, AppError> {
    if used.key_sha256 != key.key_sha256 {
        return Err(refused("this token was used already; each lets one agent join, once"));
    }
    if used.answer_until <= now {
        return Err(refused("this token was used already, and its time is over"));
    }
    let agent = enrolled_agent::find(tx, used.agent)?.filter(|agent| agent.standing != Standing::Revoked);
    let mut agent = agent.ok_or_else(|| refused("the agent that joined with this token was revoked"))?;
    if agent.key_sha256 != key.key_sha256 {
        return match &agent.pending_key_sha256 {
            Some(pending) if *pending == key.key_sha256 => Ok(Joined::Later(Pending { agent: agent.id })),
            _ => Err(refused("the agent has another key by now, or this one was rejected")),
        };
    }
    let certificate = match &used.certificate {
        Some(certificate) => certificate.clone(),
        // Approved, and asked for the first time since.
        None => {
            let certificate = issuing.issue(tx, &mut agent, key, now)?.certificate;
            enrolled_agent::update(tx, &agent)?;
            let used = Use { certificate: Some(certificate.clone()), ..used.clone() };
            join_token::used(tx, token.id, &used, now)?;
            certificate
        }
    };
    Ok(Joined::Now(Box::new(issuing.identity(tx, &agent, certificate, now)?)))
}

fn join(
    tx: &mut SystemTx<'_>,
    issuing: &Issuing,
    asked: EnrolRequest,
    key: &KeyRequest,
    now: Timestamp,
) -> Result<Joined, AppError> {
    let token = join_token::of_hash(tx, &secret_token::hash(asked.token.expose()))?;
    let token = token.ok_or_else(no_such_token)?;
    let network = network::find(tx, &token.network.to_string())?;
    if network.name != asked.network {
        return Err(refused(format!("this token is not for network `{}`", asked.network)));
    }
    if let Some(used) = &token.used {
        return again(tx, issuing, &token, used, key, now);
    }
    if token.expires_at <= now {
        return Err(refused(format!("this token has expired at {}; make a new one", token.expires_at)));
    }
    let actor = format!("join-token:{}", token.id);
    let version: String = asked.version.chars().take(VERSION_MAX).collect();
    let known = match asked.agent {
        // One of another network is as unknown as one that never was: it gets a new id.
        Some(id) => enrolled_agent::find(tx, id)?.filter(|agent| agent.network == network.id),
        None => None,
    };
    let mut burned = Use {
        agent: AgentId::generate(),
        key_sha256: key.key_sha256.clone(),
        certificate: None,
        answer_until: now,
    };
    let answer = match known {
        Some(agent) if agent.standing == Standing::Revoked => {
            return Err(refused("this agent was revoked; forget who it was (`bmi-agent enrol --new`)"));
        }
        Some(mut agent) if !agent.has_key(&key.key_sha256) => {
            // Somebody may be looking at the one that waits.
            if agent.pending_key_sha256.as_ref().is_some_and(|pending| *pending != key.key_sha256) {
                return Err(refused(
                    "another key of this agent waits for approval already; have it rejected first (`bmi agent reject`)",
                ));
            }
            agent.pending_key_sha256 = Some(key.key_sha256.clone());
            agent.version += 1;
            enrolled_agent::update(tx, &agent)?;
            (burned.agent, burned.answer_until) = (agent.id, now.plus(PENDING_FOR));
            noted(tx, actor, &agent, (KEY_PENDING, "asks for another key, which waits for approval"))?;
            tracing::warn!(agent.id = %agent.id, network.name = %network.name, "an agent asks for another key; it waits for approval");
            Joined::Later(Pending { agent: agent.id })
        }
        known => {
            let fresh = known.is_none();
            let mut agent = match known {
                // The renewal that it does not know of has not happened.
                Some(agent) => Record {
                    agent_version: version,
                    key_sha256: key.key_sha256.clone(),
                    previous_key_sha256: None,
                    previous_until: None,
                    ..agent
                },
                None => newcomer(tx, network.id, &key.key_sha256, version, now)?,
            };
            let issued = issuing.issue(tx, &mut agent, key, now)?;
            if fresh {
                enrolled_agent::insert(tx, &agent)?;
            } else {
                enrolled_agent::update(tx, &agent)?;
            }
            (burned.agent, burned.answer_until) = (agent.id, now.plus(ANSWERED_AGAIN));
            burned.certificate = Some(issued.certificate.clone());
            let joined = if fresh { "joined" } else { "joined again with its key" };
            noted(tx, actor, &agent, ("agent.joined", joined))?;
            tracing::info!(agent.id = %agent.id, network.name = %network.name, "an agent joined");
            Joined::Now(Box::new(issuing.identity(tx, &agent, issued.certificate, now)?))
        }
    };
    join_token::used(tx, token.id, &burned, now)?;
    Ok(answer)
}

/// What anybody may know who wants to join: whose certificates count here.
///
/// # Errors
/// When the database fails.
pub async fn agent_authorities(app: &App) -> Result<Authorities, AppError> {
    app.db.system_read(|tx| Ok::<_, AppError>(told(&settled(authority::list(tx)?, Timestamp::now())))).await
}

/// Lets an agent join the network of its token.
///
/// # Errors
/// When the token or the request is not good; the token is as it was then.
pub async fn agent_enrol(app: &App, asked: EnrolRequest) -> Result<Joined, AppError> {
    let issuing = Issuing::of(app)?;
    let key = key_of(&asked.request)?;
    if !secret_token::is_whole(TokenKind::Join, asked.token.expose()) {
        return Err(refused("that is no join token: it was cut off or mistyped"));
    }
    let (token, network) = (secret_token::hash(asked.token.expose()), asked.network.clone());
    // Whoever makes tokens up does not hold up those who write.
    let hash = token.clone();
    let known = app.db.system_read(move |tx| Ok::<_, AppError>(join_token::of_hash(tx, &hash)?.is_some()));
    if !known.await? {
        return Err(no_such_token());
    }
    let joined = app.db.system_write(move |tx| join(tx, &issuing, asked, &key, Timestamp::now())).await;
    if let Err(error) = &joined
        && error.is(Code::JoinTokenRefused)
    {
        let reason = format!("for `{network}`: {error}");
        app.db.system_write(move |tx| refusal_note(tx, &token, reason)).await?;
    }
    joined
}

/// Tells whoever has an agent's key that another one has its network, if that is so. Its certificate may have expired: it does
/// not count here, and nothing is given.
///
/// # Errors
/// When it was replaced, was revoked, or the key is not its own.
pub async fn agent_standing(app: &App, asked: StandingRequest) -> Result<(), AppError> {
    let key = key_of(&asked.request)?;
    app.db
        .system_read(move |tx| {
            let agent = enrolled_agent::find(tx, asked.agent)?.filter(|agent| agent.has_key(&key.key_sha256));
            let agent = agent.ok_or_else(|| speaker::refused("there is no such agent with this key"))?;
            speaker::not_revoked(tx, &agent)
        })
        .await
}

fn no_such_token() -> AppError {
    refused("there is no such token; it may have been revoked")
}

/// Tells on the network of a token that is known that it was refused: somebody has it who should not, or too late.
fn refusal_note(tx: &mut SystemTx<'_>, token: &str, reason: String) -> Result<(), AppError> {
    let Some(token) = join_token::of_hash(tx, token)? else { return Ok(()) };
    let detail = [("token", token.id.to_string()), ("reason", reason)];
    network_timeline::add(tx, token.network, Timestamp::now(), "token.refused", detail)
}

/// Notes the key of an agent whose certificate is newer than the database, which was restored from a backup: it waits for
/// approval. That it was issued here is proved, and not that it still counts: the agent may have been revoked since.
pub(super) async fn key_ahead_note(app: &App, peer: Peer) -> Result<(), AppError> {
    app.db
        .system_write(move |tx| {
            let found = enrolled_agent::find(tx, peer.id.agent)?;
            let is_meant = |agent: &Record| {
                agent.network == peer.id.network
                    && agent.standing != Standing::Revoked
                    // Another that waits is decided on first: whoever looks at it must not approve this one.
                    && agent.pending_key_sha256.is_none()
                    && !agent.has_key(&peer.key_sha256)
                    && peer.is_ahead_of(agent)
            };
            let Some(mut agent) = found.filter(is_meant) else { return Ok(()) };
            agent.pending_key_sha256 = Some(peer.key_sha256.clone());
            agent.version += 1;
            enrolled_agent::update(tx, &agent)?;
            let told = "has a certificate that is newer than the database; its key waits for approval";
            noted(tx, format!("agent:{}", agent.id), &agent, (KEY_PENDING, told))?;
            tracing::warn!(agent.id = %agent.id, "an agent's certificate is newer than the database; its key waits for approval");
            Ok::<_, AppError>(())
        })
        .await
}

/// Issues the next certificate of an agent, for a new key. The key before counts until the new one is used: an answer
/// that was lost locks nobody out.
///
/// # Errors
/// When the agent may not speak, or the key is the one it has.
pub async fn agent_renew(app: &App, peer: Peer, asked: RenewRequest) -> Result<Identity, AppError> {
    let issuing = Issuing::of(app)?;
    let key = key_of(&asked.request)?;
    app.db
        .system_write(move |tx| {
            let now = Timestamp::now();
            let mut agent = peer.agent(tx, now)?;
            if key.key_sha256 == peer.key_sha256 {
                let detail = "is for the key that the agent has; a certificate is renewed with a new one";
                let fault = Fault { field: "request".to_owned(), detail: detail.to_owned() };
                return Err(AppError::invalid(vec![fault]));
            }
            let issued = issuing.issue(tx, &mut agent, &key, now)?;
            agent.previous_key_sha256 = Some(peer.key_sha256.clone());
            agent.previous_until = None;
            agent.key_sha256 = key.key_sha256;
            enrolled_agent::update(tx, &agent)?;
            tracing::info!(agent.id = %agent.id, "an agent renewed its certificate");
            issuing.identity(tx, &agent, issued.certificate, now)
        })
        .await
}
