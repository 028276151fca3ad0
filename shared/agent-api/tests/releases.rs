//! The documents of earlier releases, as they were on the wire and on the disk: this release reads them, and what it writes for
//! a process of the release before has nothing that the process would refuse.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bmi_agent_api::config::{BootGate, NetbootConfig};
use bmi_agent_api::desired::DesiredState;
use bmi_agent_api::event::AgentEvent;
use bmi_agent_api::status::{PortStatus, StatusSent};
use serde_json::Value;

/// The oldest first.
const RELEASES: [&str; 1] = ["1"];

fn document(release: &str, name: &str) -> Value {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/release").join(release).join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every name of a field, with where it is; the elements of a list are alike.
fn names(value: &Value, place: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place}.{name}");
                names(value, &place, into);
                into.insert(place);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| names(one, &format!("{place}[]"), into)),
        _ => {}
    }
}

fn names_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    names(value, "", &mut found);
    found
}

#[test]
fn a_desired_state_of_an_earlier_control_plane_is_read() {
    for release in RELEASES {
        let state: DesiredState = serde_json::from_value(document(release, "desired.json")).unwrap();
        assert_eq!((state.instances.len(), state.ports.len()), (1, 0), "{release}");
        let instance = &state.instances[0];
        assert_eq!(instance.target.luns.len(), 2);
        assert_eq!(instance.boot_floor.0, 0, "nothing is known of it");
    }
}

#[test]
fn what_an_earlier_agent_reports_is_read() {
    for release in RELEASES {
        let sent: StatusSent = serde_json::from_value(document(release, "status.json")).unwrap();
        assert_eq!((sent.report.instances.len(), sent.report.ports), (1, Vec::<PortStatus>::new()));
        assert_eq!((sent.report.instances[0].boot_lun, sent.report.generation_observed > 0), (0, true));
        let events: Vec<AgentEvent> =
            serde_json::from_value(document(release, "events.json")["events"].clone()).unwrap();
        assert!(events.len() >= 4, "{release}");
    }
}

/// A process that runs refuses a configuration with a field that it does not know.
#[test]
fn a_process_of_the_release_before_reads_what_this_one_writes_for_it() {
    let before = RELEASES[RELEASES.len() - 1];
    let netboot: NetbootConfig = serde_json::from_value(document(before, "netboot.json")).unwrap();
    assert_eq!(netboot.instances.len(), 1, "of an instance that can boot");
    let gate: BootGate = serde_json::from_value(document(before, "boot.json")).unwrap();
    for (name, now) in
        [("netboot.json", serde_json::to_value(netboot)), ("boot.json", serde_json::to_value(gate))]
    {
        let (known, written) = (names_of(&document(before, name)), names_of(&now.unwrap()));
        assert_eq!(written.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
}

#[test]
fn a_field_that_is_not_known_yet_is_passed_over_by_agent_and_control_plane() {
    for place in ["", "/network", "/instances/0", "/instances/0/target", "/instances/0/target/luns/0"] {
        let mut state = document(RELEASES[0], "desired.json");
        state.pointer_mut(place).unwrap()["of_tomorrow"] = 1.into();
        assert!(serde_json::from_value::<DesiredState>(state).is_ok(), "{place}");
    }
    for place in ["", "/instances/0", "/netboot"] {
        let mut sent = document(RELEASES[0], "status.json");
        sent.pointer_mut(place).unwrap()["of_tomorrow"] = 1.into();
        assert!(serde_json::from_value::<StatusSent>(sent).is_ok(), "{place}");
    }
}
