//! What processes print, made into events: strict schema, unknown lines dropped.
//!
//! A line can add an event to its own process's timeline and nothing else: which process it came from is known from
//! the FIFO it came through, not from what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmi_agent_api::event::{AgentEvent, BrokerEvent, EventSource, Line, NetbootEvent, TargetEvent};
use bmi_types::Timestamp;

use crate::plan::names::ProcessId;

/// How long ago an event may have happened whose process says so: it waits in a FIFO or in an engine's log while no agent runs.
const LATEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a line of a process says, and when that happened by its own word.
///
/// # Errors
/// When it is not one of the events that kind of process may print.
pub fn read(id: ProcessId, line: &str) -> Result<(EventSource, Option<Timestamp>), serde_json::Error> {
    Ok(match id {
        ProcessId::Netboot => {
            let Line { at, said } = serde_json::from_str::<Line<NetbootEvent>>(line)?;
            (EventSource::Netboot { said }, at)
        }
        ProcessId::Broker(instance) => match serde_json::from_str::<Line<BrokerEvent>>(line)? {
            Line { at, said: said @ BrokerEvent::Listening } => (EventSource::Broker { instance, said }, at),
            Line { said: BrokerEvent::Restarted { .. }, .. } => {
                return Err(serde::de::Error::custom("only the agent says that"));
            }
        },
        ProcessId::Target(instance) => {
            let Line { at, said } = serde_json::from_str::<Line<TargetEvent>>(line)?;
            (EventSource::Target { instance, said }, at)
        }
    })
}

/// When the newest event of each process happened.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<ProcessId, Timestamp>);

impl Times {
    /// Reads a line of a process at some time. It is placed at the time that the process says, since a container's lines
    /// come a while later than another's; but only where it can have been: not before the process's last event, and not after
    /// now.
    ///
    /// # Errors
    /// When it is not one of the events that kind of process may print.
    pub fn read(
        &mut self,
        id: ProcessId,
        line: &str,
        now: Timestamp,
    ) -> Result<AgentEvent, serde_json::Error> {
        let (from, said_at) = read(id, line)?;
        let last = self.0.get(&id).copied().unwrap_or_else(|| now.minus(LATEST)).min(now);
        let at = said_at.unwrap_or(now).clamp(last, now);
        self.0.insert(id, at);
        Ok(AgentEvent { at, from })
    }

    /// Forgets processes that are gone.
    pub fn retain(&mut self, present: &BTreeSet<ProcessId>) {
        self.0.retain(|id, _| present.contains(id));
    }
}

/// Whether an event says that its process accepts connections.
#[must_use]
pub const fn is_listening(from: &EventSource) -> bool {
    matches!(
        from,
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
        let listening = r#"{"event":"listening","address":"10.20.0.8:3260"}"#;
        assert!(is_listening(&read(target, listening).unwrap().0));
        assert!(read(ProcessId::Netboot, listening).is_err(), "an address with a port");
        assert!(read(ProcessId::Netboot, r#"{"event":"listening","address":"10.20.0.2"}"#).is_ok());
        let broker = ProcessId::Broker(instance);
        assert!(is_listening(&read(broker, r#"{"event":"listening"}"#).unwrap().0));
        assert!(read(broker, r#"{"event":"broker.restarted","after":"x"}"#).is_err());
        assert!(read(target, r#"{"event":"listening"}"#).is_err());
        for bad in [
            "",
            "listening",
            "{}",
            r#"{"event":"script","mac":"52:54:00:00:00:01","instance":null,"boot":null}"#,
            r#"{"event":"listening","address":"10.20.0.8:3260","instance":"x"}"#,
            r#"{"at":"2026-11-30","event":"listening","address":"10.20.0.8:3260"}"#,
            r#"{"at":17,"event":"listening","address":"10.20.0.8:3260"}"#,
        ] {
            assert!(read(target, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_is_where_its_process_says_as_far_as_that_can_be() {
        let instance = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let target = ProcessId::Target(instance);
        let second = |second: i64| Timestamp::from_micros(1_790_000_000_000_000 + second * 1_000_000);
        let line = |at: Option<Timestamp>| {
            serde_json::to_string(&Line { at, said: TargetEvent::FirstRead }).unwrap()
        };
        let mut times = Times::default();
        let mut placed = |id, at, now| {
            let line = match id {
                ProcessId::Netboot => r#"{"event":"listening","address":"10.20.0.2"}"#.to_owned(),
                _ => line(at),
            };
            times.read(id, &line, now).unwrap().at
        };
        assert_eq!(placed(target, Some(second(3)), second(9)), second(3), "it was read late");
        assert_eq!(placed(ProcessId::Netboot, None, second(9)), second(9), "it does not say");
        assert_eq!(placed(target, Some(second(2)), second(9)), second(3), "not before the last");
        assert_eq!(placed(target, Some(second(70)), second(10)), second(10), "not in the future");
        assert_eq!(placed(target, None, second(11)), second(11));
        assert_eq!(placed(target, Some(second(12)), second(5)), second(5), "the host's clock was set back");
        times.retain(&BTreeSet::new());
        let long_ago = second(11).minus(LATEST * 3);
        let read = times.read(target, &line(Some(long_ago)), second(11)).unwrap();
        assert_eq!(read.at, second(11).minus(LATEST));
    }
}
