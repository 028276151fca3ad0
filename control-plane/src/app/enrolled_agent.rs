//! Agents that joined: who they are, which key counts, and who has a network.
//!
//! Invariants: one agent at a time has a network; a network changes hands only after whoever had its volumes is fenced.

use bmi_api::{Agent, Code};
use bmi_auth::{Action, Caller};
use bmi_db::enrolled_agent::{self as db, Record, Standing};
use bmi_db::{After, join_token};
use bmi_drivers::store::Place;
use bmi_types::{AgentId, NetworkId, Timestamp};

use super::access::Access;
use super::{App, if_match, network};
use crate::error::AppError;

/// How long an agent whose key was approved may fetch its certificate.
const APPROVED_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

fn find(access: &mut Access<'_, '_>, text: &str) -> Result<Record, AppError> {
    let id: AgentId = text.parse().map_err(|_| AppError::not_found())?;
    db::find(access, id)?.ok_or_else(AppError::not_found)
}

fn wrong_state(detail: impl Into<String>) -> AppError {
    AppError::refused(Code::WrongState, detail)
}

/// Lists agents, oldest first; with a network, its agents.
pub async fn agent_list(
    app: &App,
    caller: &Caller,
    network: Option<String>,
    after: After,
) -> Result<Vec<Agent>, AppError> {
    app.reading(caller, move |access| {
        access.permit_everywhere(Action::AgentRead)?;
        let network = match network {
            Some(text) => Some(network::find(access, &text)?.id),
            None => None,
        };
        Ok(db::list(access, network, after)?.into_iter().map(Record::shown).collect())
    })
    .await
}

/// Shows an agent.
pub async fn agent_show(app: &App, caller: &Caller, agent: String) -> Result<Agent, AppError> {
    app.reading(caller, move |access| {
        access.permit_everywhere(Action::AgentRead)?;
        find(access, &agent).map(Record::shown)
    })
    .await
}

/// Changes one agent.
async fn agent_change(
    app: &App,
    caller: &Caller,
    agent: String,
    version: Option<i64>,
    what: &'static str,
    change: impl FnOnce(&mut Access<'_, '_>, &mut Record) -> Result<(), AppError> + Send + 'static,
) -> Result<Agent, AppError> {
    let changed = app.changing(caller, move |access| {
        access.permit_everywhere(Action::AgentWrite)?;
        let mut found = find(access, &agent)?;
        if_match(version, found.version)?;
        change(access, &mut found)?;
        found.version += 1;
        db::update(access, &found)?;
        access.did_to("agent", found.id, found.network, what.to_owned());
        Ok(found.shown())
    });
    // Whoever listens is told at once.
    changed.await.inspect(|_| app.wake.desired.ring())
}

/// Approves the key that waits: it is the agent's from now on, and the one before no longer.
pub async fn agent_approve(
    app: &App,
    caller: &Caller,
    agent: String,
    version: Option<i64>,
) -> Result<Agent, AppError> {
    agent_change(app, caller, agent, version, "key approved", |access, agent| {
        let none = || wrong_state("no key of this agent waits for approval");
        let key = agent.pending_key_sha256.take().filter(|_| agent.standing != Standing::Revoked);
        let key = key.ok_or_else(none)?;
        join_token::answers_until(access, agent.id, &key, Timestamp::now().plus(APPROVED_FOR))?;
        agent.key_sha256 = key;
        agent.previous_key_sha256 = None;
        agent.previous_until = None;
        Ok(())
    })
    .await
}

/// Rejects the key that waits. The agent keeps the one it has.
pub async fn agent_reject(
    app: &App,
    caller: &Caller,
    agent: String,
    version: Option<i64>,
) -> Result<Agent, AppError> {
    agent_change(app, caller, agent, version, "key rejected", |_, agent| {
        let none = || wrong_state("no key of this agent waits for approval");
        agent.pending_key_sha256.take().map(drop).ok_or_else(none)
    })
    .await
}

/// Revokes an agent: it may say and hear nothing from its next request on. What it runs goes on.
pub async fn agent_revoke(
    app: &App,
    caller: &Caller,
    agent: String,
    version: Option<i64>,
) -> Result<Agent, AppError> {
    agent_change(app, caller, agent, version, "revoked", |_, agent| {
        agent.standing = Standing::Revoked;
        agent.pending_key_sha256 = None;
        Ok(())
    })
    .await
}

/// The agent that takes over: the one that is named, or the only one that stands by.
fn successor(
    access: &mut Access<'_, '_>,
    network: NetworkId,
    by: Option<AgentId>,
) -> Result<Record, AppError> {
    let mut waiting = db::of_network(access, network, Standing::Standby)?;
    waiting.retain(|agent| by.is_none_or(|by| agent.id == by));
    match (waiting.pop(), waiting.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(_), false) => Err(wrong_state("several agents of the network stand by; name one with `by`")),
        (None, _) => Err(wrong_state("no agent of the network stands by; let one join first")),
    }
}

/// Gives an agent's network to another one: the old agent is revoked, whoever has the network's volumes is fenced, and
/// then the one that stood by has it. Whoever is interrupted asks for the same again.
pub async fn agent_replace(
    app: &App,
    caller: &Caller,
    agent: String,
    by: Option<AgentId>,
    version: Option<i64>,
) -> Result<Agent, AppError> {
    let (network, next) = app
        .changing(caller, move |access| {
            access.permit_everywhere(Action::AgentWrite)?;
            let mut old = find(access, &agent)?;
            if_match(version, old.version)?;
            let actives = db::of_network(access, old.network, Standing::Active)?;
            if actives.iter().any(|active| active.id != old.id) {
                return Err(wrong_state("another agent has the network already"));
            }
            let next = successor(access, old.network, by)?;
            if next.id == old.id {
                return Err(wrong_state("this agent stands by itself; name the one that it is to replace"));
            }
            old.standing = Standing::Revoked;
            old.pending_key_sha256 = None;
            old.version += 1;
            db::update(access, &old)?;
            access.did_to("agent", old.id, old.network, format!("replaced by {}", next.id));
            Ok((old.network, next.id))
        })
        .await?;
    app.wake.desired.ring();
    fence(app, network).await?;
    let taken = app.db.system_write(move |tx| {
        let gone = || wrong_state("the agent that was to take over was revoked meanwhile");
        let mut next =
            db::find(tx, next)?.filter(|next| next.standing != Standing::Revoked).ok_or_else(gone)?;
        if next.standing == Standing::Standby {
            next.standing = Standing::Active;
            next.version += 1;
            db::update(tx, &next)?;
            // Nothing that the old one made counts.
            bmi_db::instance::targets_absent_except(tx, network, &[])?;
            bmi_db::network::bump_generation(tx, network)?;
        }
        Ok::<_, AppError>(next.shown())
    });
    taken.await.inspect(|_| app.wake.desired.ring())
}

/// Fences whoever has the volumes of a network's instances.
async fn fence(app: &App, network: NetworkId) -> Result<(), AppError> {
    let found =
        app.db.system_read(move |tx| Ok::<_, AppError>(bmi_db::instance::desired(tx, network)?)).await?;
    for (record, _) in found {
        let place = |volume| Place { project: record.instance.project, volume };
        app.store.fence(place(record.boot_volume), place(record.config_volume)).await?;
    }
    Ok(())
}
