//! A network changes hands: from an agent that is lost to one that stands by.
//!
//! Invariants: one agent at a time has a network; it changes hands only after whoever had its volumes is fenced.

use bmi_api::Agent;
use bmi_auth::{Action, Caller};
use bmi_db::SystemTx;
use bmi_db::enrolled_agent::{self as db, Record, Standing};
use bmi_drivers::store::Place;
use bmi_types::{AgentId, NetworkId};

use super::access::Access;
use super::enrolled_agent::{find, wrong_state};
use super::network_timeline::agent_event;
use super::{App, if_match};
use crate::error::AppError;

/// Whoever comes after an agent.
enum Next {
    /// It has the network already.
    Has(Box<Record>),
    /// It takes it over.
    Takes(AgentId),
}

/// The agent that takes over: the one that is named, or the only one that stands by.
fn successor(
    access: &mut Access<'_, '_>,
    network: NetworkId,
    by: Option<AgentId>,
) -> Result<Record, AppError> {
    let mut waiting = db::of_network(access, network, Standing::Standby)?;
    let others = waiting.len();
    waiting.retain(|agent| by.is_none_or(|by| agent.id == by));
    if waiting.is_empty() && others > 0 {
        return Err(wrong_state("the agent that is named does not stand by in this network; others do"));
    }
    match (waiting.pop(), waiting.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (Some(_), false) => Err(wrong_state(
            "several agents of the network stand by; name the one that is to take over (`by`, `--by`)",
        )),
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
            let active = db::of_network(access, old.network, Standing::Active)?.pop();
            if let Some(active) = active.filter(|active| active.id != old.id) {
                // Asked again, since the answer was lost: it was done.
                if old.standing == Standing::Revoked && by.is_none_or(|by| by == active.id) {
                    access.did_to(
                        "agent",
                        old.id,
                        old.network,
                        format!("was replaced by {} before", active.id),
                    );
                    return Ok((old.network, Next::Has(Box::new(active))));
                }
                return Err(wrong_state("another agent has the network already"));
            }
            if_match(version, old.version)?;
            let next = successor(access, old.network, by)?;
            if next.id == old.id {
                return Err(wrong_state("this agent stands by itself; name the one that it is to replace"));
            }
            old.standing = Standing::Revoked;
            old.pending_key_sha256 = None;
            old.version += 1;
            db::update(access, &old)?;
            agent_event(access, old.network, old.id, "agent.replaced", [("by", next.id.to_string())])?;
            access.did_to("agent", old.id, old.network, format!("replaced by {}", next.id));
            Ok((old.network, Next::Takes(next.id)))
        })
        .await?;
    let next = match next {
        Next::Has(active) => return Ok(active.shown()),
        Next::Takes(next) => next,
    };
    app.wake.desired.ring();
    let fenced = fence(app, network).await;
    let taken = app.db.system_write(move |tx| {
        // Whoever has the network by now is to hear the next keys: also one to whom another request gave it, and whom this one
        // fenced before it is refused.
        bmi_db::network::bump_generation(tx, network)?;
        Ok::<_, AppError>(match fenced {
            Ok(()) => take_over(tx, network, next)?,
            Err(error) => Err(error),
        })
    });
    let taken = taken.await?;
    app.wake.desired.ring();
    taken
}

/// Gives a network to an agent that stands by; or says why it is not.
fn take_over(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    next: AgentId,
) -> Result<Result<Agent, AppError>, AppError> {
    let Some(mut next) = db::find(tx, next)?.filter(|next| next.standing != Standing::Revoked) else {
        return Ok(Err(wrong_state("the agent that was to take over was revoked meanwhile")));
    };
    if next.standing == Standing::Standby {
        // Somebody named another one at the same time.
        if let Some(other) = db::of_network(tx, network, Standing::Active)?.pop() {
            let detail = format!("agent {} has taken the network over meanwhile", other.id);
            return Ok(Err(wrong_state(detail)));
        }
        next.standing = Standing::Active;
        next.version += 1;
        db::update(tx, &next)?;
        agent_event(tx, network, next.id, "agent.active", [])?;
        // Nothing that the old one made counts.
        bmi_db::instance::targets_absent_except(tx, network, &[])?;
    }
    Ok(Ok(next.shown()))
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
