//! Agents that joined: who they are, and which key counts.

use bmi_api::{Agent, Code};
use bmi_auth::{Action, Caller};
use bmi_db::enrolled_agent::{self as db, Record, Standing};
use bmi_db::{After, join_token};
use bmi_types::{AgentId, Timestamp};

use super::access::Access;
use super::network_timeline::agent_event;
use super::{App, if_match, network};
use crate::error::AppError;

/// How long an agent whose key was approved may fetch its certificate.
const APPROVED_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

pub(super) fn find(access: &mut Access<'_, '_>, text: &str) -> Result<Record, AppError> {
    let id: AgentId = text.parse().map_err(|_| AppError::not_found())?;
    db::find(access, id)?.ok_or_else(AppError::not_found)
}

pub(super) fn wrong_state(detail: impl Into<String>) -> AppError {
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
    (event, what): (&'static str, &'static str),
    change: impl FnOnce(&mut Access<'_, '_>, &mut Record) -> Result<(), AppError> + Send + 'static,
) -> Result<Agent, AppError> {
    let changed = app.changing(caller, move |access| {
        access.permit_everywhere(Action::AgentWrite)?;
        let mut found = find(access, &agent)?;
        if_match(version, found.version)?;
        change(access, &mut found)?;
        found.version += 1;
        db::update(access, &found)?;
        agent_event(access, found.network, found.id, event, [])?;
        access.did_to("agent", found.id, found.network, what.to_owned());
        Ok(found.shown())
    });
    // Whoever listens is told at once.
    changed.await.inspect(|_| app.wake.desired.ring())
}

/// Approves the key that waits, if it is this one: it is the agent's from now on, and the one before no longer. Whoever has a
/// token of the network can have a key wait, so it is named by whoever saw it on the agent's host.
pub async fn agent_approve(
    app: &App,
    caller: &Caller,
    agent: String,
    named: String,
    version: Option<i64>,
) -> Result<Agent, AppError> {
    agent_change(app, caller, agent, version, ("agent.approved", "key approved"), move |access, agent| {
        let none = || wrong_state("no key of this agent waits for approval");
        let key = agent.pending_key_sha256.take().filter(|_| agent.standing != Standing::Revoked);
        let key = key.ok_or_else(none)?;
        if key != named {
            return Err(wrong_state(format!(
                "the key that waits is {key} and not the one that was named: what does the agent say on its host? If it is \
                 another, reject the one that waits"
            )));
        }
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
    agent_change(app, caller, agent, version, ("agent.rejected", "key rejected"), |_, agent| {
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
    agent_change(app, caller, agent, version, ("agent.revoked", "revoked"), |_, agent| {
        agent.standing = Standing::Revoked;
        agent.pending_key_sha256 = None;
        Ok(())
    })
    .await
}
