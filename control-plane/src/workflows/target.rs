//! The target of an instance: published to the agent and withdrawn from it, and what the agent made of that.

use bmi_api::{Code, TargetState};
use bmi_db::SystemTx;
use bmi_db::instance::Record;
use bmi_types::InstanceId;
use bmi_workflow::{Observed, StepError};
use tokio::time::Instant;

use super::context::{Context, app_error};
use crate::error::AppError;

/// What the agent has made of an instance's target.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The agent works on the newest state, and the target listens.
    Exposed,
    /// The agent works on the newest state, and nothing of the target exists.
    Withdrawn,
    /// Not yet: of what kind that is, and why.
    Waiting(Code, String),
}

fn look(tx: &mut SystemTx<'_>, id: InstanceId) -> Result<Seen, AppError> {
    let Some(record) = bmi_db::instance::by_id(tx, id)? else { return Ok(Seen::Withdrawn) };
    let Some(wanted) = record.withdrawn_generation.or(record.published_generation) else {
        return Ok(Seen::Withdrawn);
    };
    let observed = bmi_db::agent::generation_observed(tx, record.instance.network)?;
    let silent = |reason: String| Ok(Seen::Waiting(Code::AgentUnavailable, reason));
    let Some(observed) = observed else {
        // An agent that never was has made nothing.
        return match record.withdrawn_generation {
            Some(_) => Ok(Seen::Withdrawn),
            None => silent("no agent of the network has ever reported; start bmi-agent for it".to_owned()),
        };
    };
    if observed < wanted {
        return silent(format!("the network's agent is at generation {observed}, not yet at {wanted}"));
    }
    let state = record.instance.target_state;
    match (record.withdrawn_generation, state) {
        (None, TargetState::Listening) => Ok(Seen::Exposed),
        (Some(_), TargetState::Absent) => Ok(Seen::Withdrawn),
        _ => {
            let reason = record.target_reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let said = format!("the agent says that the target is {state}{reason}");
            Ok(Seen::Waiting(Code::TargetFailed, said))
        }
    }
}

async fn seen(context: &Context, id: InstanceId) -> Result<Seen, StepError> {
    context.app.db.system_read(move |tx| look(tx, id)).await.map_err(app_error)
}

/// Whether the target can be logged in to.
pub(super) async fn is_exposed(context: &Context, record: &Record) -> Result<Observed, StepError> {
    Ok(match seen(context, record.instance.id).await? {
        Seen::Exposed => Observed::Done,
        Seen::Withdrawn | Seen::Waiting(..) => Observed::NotDone,
    })
}

/// Whether nothing of the target exists.
pub(super) async fn is_withdrawn(context: &Context, record: &Record) -> Result<Observed, StepError> {
    Ok(match seen(context, record.instance.id).await? {
        Seen::Withdrawn => Observed::Done,
        Seen::Exposed | Seen::Waiting(..) => Observed::NotDone,
    })
}

/// Publishes the target and waits until it can be logged in to.
pub(super) async fn expose(context: &Context, record: &Record) -> Result<(), StepError> {
    let (id, network) = (record.instance.id, record.instance.network);
    context
        .app
        .db
        .system_write(move |tx| {
            let found = bmi_db::instance::by_id(tx, id)?;
            if found.is_some_and(|found| found.published_generation.is_none()) {
                let generation = bmi_db::network::bump_generation(tx, network)?;
                bmi_db::instance::publish(tx, id, Some(generation), None)?;
            }
            Ok::<_, AppError>(())
        })
        .await
        .map_err(app_error)?;
    wait(context, id, &Seen::Exposed).await
}

/// Withdraws the target and waits until nothing of it exists. Nothing happens when it was never published.
pub(super) async fn withdraw(context: &Context, record: &Record) -> Result<(), StepError> {
    let (id, network) = (record.instance.id, record.instance.network);
    context
        .app
        .db
        .system_write(move |tx| {
            let Some(found) = bmi_db::instance::by_id(tx, id)? else { return Ok(()) };
            if found.published_generation.is_some() && found.withdrawn_generation.is_none() {
                let generation = bmi_db::network::bump_generation(tx, network)?;
                bmi_db::instance::publish(tx, id, found.published_generation, Some(generation))?;
            }
            Ok::<_, AppError>(())
        })
        .await
        .map_err(app_error)?;
    wait(context, id, &Seen::Withdrawn).await
}

async fn wait(context: &Context, id: InstanceId, wanted: &Seen) -> Result<(), StepError> {
    let deadline = Instant::now() + context.app.agent_wait;
    let mut bell = context.app.wake.reported.listen();
    context.app.wake.desired.ring();
    loop {
        match seen(context, id).await? {
            seen if seen == *wanted => return Ok(()),
            Seen::Waiting(code, reason) if Instant::now() >= deadline => {
                return Err(StepError::later(reason).coded(code.as_str()));
            }
            _ if Instant::now() >= deadline => {
                let late = StepError::later("the agent did not answer in time");
                return Err(late.coded(Code::AgentUnavailable.as_str()));
            }
            // Rung, or time to look again by itself, or the last look.
            _ => drop(tokio::time::timeout_at(deadline, bell.wait()).await),
        }
    }
}
