//! What an agent makes of a desired state that is none, or not its own, or older than what it has: nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeSet;

use bmi_agent_api::event::{About, HostEvent};
use bmi_agent_api::status::ServiceStatus;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Host, desired, instance, until};

#[test]
fn a_desired_state_that_is_forged_truncated_or_old_changes_nothing() {
    let mut host = Host::new("forged");
    let volume = host.volume("1.raw");
    let own = instance(1, &volume);
    host.control_plane.want(desired(5, vec![own.clone()]));
    host.agent_start_logged();
    host.await_target(own.id, &ServiceStatus::Listening);
    let pid = host.pid(&own.id.to_string());

    let whole = serde_json::to_string(&desired(9, Vec::new())).unwrap();
    let mut other = desired(9, Vec::new());
    other.network.name = "other".parse().unwrap();
    let mut range = serde_json::to_value(desired(9, Vec::new())).unwrap();
    range["network"]["cidr"] = "10.20.0.0/99".into();
    let mut negative = serde_json::to_value(desired(9, Vec::new())).unwrap();
    negative["generation"] = (-1).into();
    for text in [
        "",
        "{",
        "[]",
        "null",
        &whole[..whole.len() / 2],
        &serde_json::to_string(&other).unwrap(),
        &range.to_string(),
        &negative.to_string(),
        &"[".repeat(100_000),
        // An older one, and the same once more, with nothing in them.
        &serde_json::to_string(&desired(4, Vec::new())).unwrap(),
        &serde_json::to_string(&desired(5, Vec::new())).unwrap(),
    ] {
        host.control_plane.say(text);
        let status = host.control_plane.status().unwrap();
        assert_eq!(status.generation_observed, 5, "{text:.60}");
        assert_eq!(host.pid(&own.id.to_string()), pid, "{text:.60}");
    }
    let log = std::fs::read_to_string(host.agent_log()).unwrap();
    for part in ["reading the desired state", "is that of network other"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    // Each is told, and not as often as it was asked for.
    for part in [
        "reading the desired state",
        "is that of network other",
        "of generation 4, and the agent has 5 already",
    ] {
        host.await_fault(About::Desired, part);
    }
    let of_desired = |said: &&HostEvent| {
        matches!(
            said,
            HostEvent::Fault { about: About::Desired, .. } | HostEvent::Mended { about: About::Desired }
        )
    };
    let told = host.told();
    assert!(told.iter().filter(of_desired).count() < 30, "{told:?}");
    // What is mended is carried out.
    host.control_plane.want(desired(10, Vec::new()));
    host.await_generation(10, 0);
    host.await_mended(About::Desired);
    until("the target is gone", || (!host.directory(&own.id.to_string()).exists()).then_some(()));
}

#[test]
fn a_host_that_is_given_to_another_network_serves_nothing_of_the_one_before() {
    let mut host = Host::new("moved");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    host.agent_kill();
    host.control_plane.go_away(true);
    for process in [wanted.id.to_string(), "netboot".to_owned()] {
        let pid = Pid::from_raw(host.pid(&process));
        kill(pid, Signal::SIGKILL).unwrap();
    }
    host.ip(&["link", "del", "bmi0"]);
    // The same host and directory, and nobody there yet to say what this network has.
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), text.replace("network = \"lab\"", "network = \"other\"")).unwrap();
    // Docker keeps the network of a container that has ended for up to a minute, and its link with it.
    let started = |host: &Host| -> BTreeSet<u64> {
        let links = host.links().into_iter().filter(|link| link.starts_with("bt") || link.starts_with("bn"));
        links.filter_map(|link| host.link(&link)?["ifindex"].as_u64()).collect()
    };
    let before = started(&host);
    host.agent_start_logged();
    until("it says so", || {
        let log = std::fs::read_to_string(host.agent_log()).ok()?;
        log.contains("of another network, and is not served").then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(host.link("bmi0").is_none(), "the bridge of the other network");
    assert!(started(&host).is_subset(&before), "{:?}", host.links());
}
