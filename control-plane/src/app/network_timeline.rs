//! The timeline of a network: what its agents say of their work, and who they are.

use std::collections::BTreeMap;

use bmi_agent_api::event::{About, HostEvent};
use bmi_api::{NetworkEvent, NetworkTimeline};
use bmi_auth::{Action, Caller};
use bmi_db::{SystemTx, Tx};
use bmi_types::{AgentId, NetworkId, Timestamp};

use super::{App, network};
use crate::error::AppError;

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 500;

/// Shows what happened to a network: to whoever sees its agents.
///
/// # Errors
/// When there is no such network, the caller may not, or the database fails.
pub async fn network_timeline(
    app: &App,
    caller: &Caller,
    network: String,
) -> Result<NetworkTimeline, AppError> {
    app.reading(caller, move |access| {
        access.permit_everywhere(Action::AgentRead)?;
        let found = network::find(access, &network)?;
        let events = bmi_db::network_event::list(access, found.id)?;
        let shown = events.into_iter().map(|(at, event, detail)| NetworkEvent { at, event, detail });
        Ok(NetworkTimeline { network: found.id, events: shown.collect() })
    })
    .await
}

/// Adds what an agent says of its work.
pub(super) fn host_event(
    tx: &mut SystemTx<'_>,
    network: NetworkId,
    at: Timestamp,
    said: &HostEvent,
) -> Result<(), AppError> {
    let bounded = |text: &str| text.chars().take(REASON_MAX).collect::<String>();
    let about = |about: &About| ("about", about.as_str().to_owned());
    let (event, detail) = match said {
        HostEvent::Fault { about: of, reason } => ("fault", vec![about(of), ("reason", bounded(reason))]),
        HostEvent::Mended { about: of } => ("mended", vec![about(of)]),
        HostEvent::RulesRestored { table } => ("rules.restored", vec![("table", bounded(table))]),
    };
    add(tx, network, at, event, detail)
}

/// Adds what happened to one agent of a network.
pub(super) fn agent_event(
    tx: &mut Tx<'_>,
    network: NetworkId,
    agent: AgentId,
    event: &str,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), AppError> {
    let detail = [("agent", agent.to_string())].into_iter().chain(more);
    add(tx, network, Timestamp::now(), event, detail)
}

/// Adds an event.
pub(super) fn add(
    tx: &mut Tx<'_>,
    network: NetworkId,
    at: Timestamp,
    event: &str,
    detail: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<(), AppError> {
    let detail: BTreeMap<String, String> =
        detail.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(bmi_db::network_event::insert(tx, network, at, event, &detail)?)
}
