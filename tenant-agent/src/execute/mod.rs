//! Carrying out a plan: no decisions, only order. Neighbouring starts, and neighbouring stops, go side by side.
//!
//! A fault of one process does not keep the others from being worked on: faults are collected.

use futures::StreamExt;
use futures::stream;

use crate::helper::client::{Helper, HelperError};
use crate::helper::verbs::Verb;
use crate::plan::Action;
use crate::plan::names::ProcessId;

/// Actions side by side: as many as the helper works on at once.
const AT_ONCE: usize = 8;

/// What an action failed with, and which process it was about; nothing for the bridge.
#[derive(Debug)]
pub struct Fault {
    /// The process.
    pub process: Option<ProcessId>,
    /// Why, for people.
    pub error: HelperError,
}

/// Which actions may go side by side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alone,
    Stop,
    /// After the target that uses it.
    BrokerStop,
    Start,
}

const fn kind(action: &Action) -> Kind {
    match action {
        Action::NetbootConfigure(_) | Action::NetworkEnsure(_) => Kind::Alone,
        Action::ProcessStop(ProcessId::Broker(_)) => Kind::BrokerStop,
        Action::ProcessStop(_) => Kind::Stop,
        Action::NetbootStart(..) | Action::TargetStart(..) | Action::BrokerStart(_) => Kind::Start,
    }
}

/// Does everything, and gives the faults. Processes are not started when the bridge could not be made.
pub async fn execute(helper: &Helper, actions: Vec<Action>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let groups = actions.chunk_by(|one, next| kind(one) == kind(next) && kind(one) != Kind::Alone);
    for group in groups {
        let fenced = !faults.iter().any(|fault: &Fault| fault.process.is_none());
        if group.first().map(kind) == Some(Kind::Start) && !fenced {
            break;
        }
        let done: Vec<Option<Fault>> = stream::iter(group.iter().cloned())
            .map(|action| perform(helper, action))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        faults.extend(done.into_iter().flatten());
    }
    faults
}

async fn perform(helper: &Helper, action: Action) -> Option<Fault> {
    let process = action.process();
    let verb = match action {
        Action::NetbootConfigure(config) => Verb::NetbootConfigure { config },
        Action::ProcessStop(id) => Verb::ProcessStop { id },
        Action::NetworkEnsure(network) => Verb::NetworkEnsure { network },
        Action::NetbootStart(spec, config) => Verb::NetbootStart { spec, config },
        Action::TargetStart(spec, gate) => Verb::TargetStart { spec, gate },
        Action::BrokerStart(spec) => Verb::BrokerStart { spec },
    };
    helper.order(verb).await.err().map(|error| Fault { process, error })
}
