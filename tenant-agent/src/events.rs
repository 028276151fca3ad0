//! What processes print, made into events: strict schema, unknown lines dropped.
//!
//! A line can add an event to its own process's timeline and nothing else: which process it came from is known from
//! the FIFO it came through, not from what it says.

use bmi_agent_api::event::{AgentEvent, BrokerEvent, EventSource, NetbootEvent, TargetEvent};
use bmi_types::Timestamp;

use crate::plan::names::ProcessId;

/// Reads a line of a process.
///
/// # Errors
/// When it is not one of the events that kind of process may print.
pub fn read(id: ProcessId, line: &str, at: Timestamp) -> Result<AgentEvent, serde_json::Error> {
    let from = match id {
        ProcessId::Netboot => EventSource::Netboot { said: serde_json::from_str::<NetbootEvent>(line)? },
        ProcessId::Broker(instance) => match serde_json::from_str::<BrokerEvent>(line)? {
            said @ BrokerEvent::Listening => EventSource::Broker { instance, said },
            BrokerEvent::Restarted { .. } => {
                return Err(serde::de::Error::custom("only the agent says that"));
            }
        },
        ProcessId::Target(instance) => {
            EventSource::Target { instance, said: serde_json::from_str::<TargetEvent>(line)? }
        }
    };
    Ok(AgentEvent { at, from })
}

/// Whether an event says that its process accepts connections.
#[must_use]
pub const fn is_listening(event: &AgentEvent) -> bool {
    matches!(
        event.from,
        EventSource::Target { said: TargetEvent::Listening { .. }, .. }
            | EventSource::Netboot { said: NetbootEvent::Listening { .. } }
            | EventSource::Broker { said: BrokerEvent::Listening, .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_events_of_that_kind_of_process_are_accepted() {
        let instance = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let target = ProcessId::Target(instance);
        let at = Timestamp::from_micros(0);
        let listening = r#"{"event":"listening","address":"10.20.0.8:3260"}"#;
        assert!(is_listening(&read(target, listening, at).unwrap()));
        assert!(read(ProcessId::Netboot, listening, at).is_err(), "an address with a port");
        assert!(read(ProcessId::Netboot, r#"{"event":"listening","address":"10.20.0.2"}"#, at).is_ok());
        let broker = ProcessId::Broker(instance);
        assert!(is_listening(&read(broker, r#"{"event":"listening"}"#, at).unwrap()));
        assert!(read(broker, r#"{"event":"broker.restarted","after":"x"}"#, at).is_err());
        assert!(read(target, r#"{"event":"listening"}"#, at).is_err());
        for bad in [
            "",
            "listening",
            "{}",
            r#"{"event":"script","mac":"52:54:00:00:00:01","instance":null,"boot":null}"#,
            r#"{"event":"listening","address":"10.20.0.8:3260","instance":"x"}"#,
        ] {
            assert!(read(target, bad, at).is_err(), "{bad}");
        }
    }
}
