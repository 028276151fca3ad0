//! Faults of the agent's own work, told to the control plane: each once when it begins or its reason changes, and once when
//! it is over.

use bmi_agent_api::event::{About, AgentEvent, EventSource, HostEvent};
use bmi_types::Timestamp;
use tokio::sync::mpsc;

/// The longest reason that is told, in characters.
const REASON_LONGEST: usize = 500;

/// Tells of one kind of fault.
#[derive(Debug)]
pub struct Faults {
    about: About,
    events: mpsc::Sender<AgentEvent>,
    told: Option<String>,
}

impl Faults {
    /// Nothing is wrong yet.
    #[must_use]
    pub const fn new(about: About, events: mpsc::Sender<AgentEvent>) -> Self {
        Self { about, events, told: None }
    }

    /// Notes how it is: what is wrong, or that nothing is.
    pub fn note(&mut self, fault: Option<&str>) {
        let fault: Option<String> = fault.map(|reason| reason.chars().take(REASON_LONGEST).collect());
        if fault == self.told {
            return;
        }
        let about = self.about;
        let said = match &fault {
            Some(reason) => HostEvent::Fault { about, reason: reason.clone() },
            None => HostEvent::Mended { about },
        };
        let event = AgentEvent { at: Timestamp::now(), from: EventSource::Agent { said } };
        // Where there is no room it is told the next time.
        if self.events.try_send(event).is_ok() {
            self.told = fault;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_once_and_again_when_it_changes_or_ends() {
        let (events, mut told) = mpsc::channel(3);
        let mut faults = Faults::new(About::Network, events);
        for fault in [None, Some("a"), Some("a"), Some("b"), None, None] {
            faults.note(fault);
        }
        let said = std::iter::from_fn(|| told.try_recv().ok()).map(|event| event.from);
        let fault = |reason: &str| HostEvent::Fault { about: About::Network, reason: reason.to_owned() };
        let all = [fault("a"), fault("b"), HostEvent::Mended { about: About::Network }];
        assert_eq!(said.collect::<Vec<_>>(), all.map(|said| EventSource::Agent { said }));
    }

    #[test]
    fn what_found_no_room_is_told_later() {
        let (events, mut told) = mpsc::channel(1);
        let mut faults = Faults::new(About::Host, events);
        faults.note(Some("a"));
        faults.note(None);
        assert!(told.try_recv().is_ok(), "the first");
        faults.note(None);
        assert!(told.try_recv().is_ok(), "that it is over");
        assert!(told.try_recv().is_err());
    }
}
