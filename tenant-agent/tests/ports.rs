//! Ports that lead to one node each: in the bridge while they are wanted there, in quarantine otherwise.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::status::{PortPlace, ServiceStatus};
use support::{Host, address_take, connects, desired, dhcp, dhcp_try, instance, mac, run, until};

const IPXE: &[&str] = &["-x", "0x4d:69505845"];
const IMPATIENT: &[&str] = &["-x", "0x4d:69505845", "-t", "2", "-T", "1"];

/// A host with a node at each of two ports of its own, both up and in no bridge, and one instance.
fn host(name: &str) -> (Host, DesiredInstance, [String; 2]) {
    let mut host = Host::new(name);
    host.configure("node_ports = [\"card1\", \"card2\"]\n");
    let nodes = [1, 2].map(|number: u8| {
        let node = host.namespace_add(&format!("n{number}"));
        let port = format!("card{number}");
        host.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &node]);
        host.ip(&["link", "set", &port, "up"]);
        run("ip", &["-n", &node, "link", "set", "eth0", "address", &mac(number).to_string(), "up"]);
        node
    });
    let wanted = instance(1, &host.volume("1.raw"));
    (host, wanted, nodes)
}

fn want(host: &Host, generation: u64, instances: &[DesiredInstance], ports: &[&str]) {
    let mut state = desired(generation, instances.to_vec());
    state.ports = ports.iter().map(|&port| port.to_owned()).collect();
    host.control_plane.want(state);
}

/// Waits until the agent says, after a generation, that a port is in such a place.
fn await_place(host: &Host, generation: u64, port: &str, is: impl Fn(&PortPlace) -> bool) {
    until(&format!("{port} after generation {generation}"), || {
        let status = host.control_plane.status()?;
        let said = status.ports.iter().find(|said| said.interface == port)?;
        (status.generation_observed == generation && is(&said.place)).then_some(())
    });
}

/// In which bridge a port is, and whether it is up.
fn really(host: &Host, port: &str) -> (Option<String>, bool) {
    let link = host.link(port).unwrap();
    let up = link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP");
    (link["master"].as_str().map(str::to_owned), up)
}

const QUARANTINE: (Option<String>, bool) = (None, false);

#[test]
fn a_port_is_in_quarantine_until_it_is_wanted_and_afterwards() {
    let (mut host, wanted, [node, other]) = host("ports");
    want(&host, 1, &[], &[]);
    host.agent_start();
    for port in ["card1", "card2"] {
        await_place(&host, 1, port, |place| *place == PortPlace::Quarantined);
        assert_eq!(really(&host, port), QUARANTINE);
    }
    want(&host, 2, std::slice::from_ref(&wanted), &["card1"]);
    await_place(&host, 2, "card1", |place| *place == PortPlace::Attached);
    host.await_target(wanted.id, &ServiceStatus::Listening);
    assert_eq!(really(&host, "card1"), (Some("bmi0".to_owned()), true));
    assert_eq!(really(&host, "card2"), QUARANTINE);
    // The boot services, which run already, know of the node a moment after its target listens; until then it is a stranger.
    let (address, _) = until("it is given its own address", || {
        Some(dhcp(&host, &node, IPXE)).filter(|(address, _)| address == "10.20.0.71")
    });
    address_take(&node, &address);
    // The bridge's rules know a port within a second after it joined.
    until("its target answers", || connects(&node, "10.20.0.9", 3260).then_some(()));
    assert!(dhcp_try(&host, &other, IMPATIENT).is_err(), "who is in quarantine hears nobody");

    // Somebody takes it out and puts the other one in: it is put right.
    host.ip(&["link", "set", "card1", "nomaster"]);
    host.ip(&["link", "set", "card2", "master", "bmi0", "up"]);
    until("the ports are put right", || {
        (really(&host, "card1").0.as_deref() == Some("bmi0") && really(&host, "card2") == QUARANTINE)
            .then_some(())
    });

    // An agent that starts again finds it so, also without the control plane.
    host.agent_kill();
    host.agent_start();
    await_place(&host, 2, "card1", |place| *place == PortPlace::Attached);

    want(&host, 3, &[], &[]);
    await_place(&host, 3, "card1", |place| *place == PortPlace::Quarantined);
    assert_eq!(really(&host, "card1"), QUARANTINE);
    assert!(dhcp_try(&host, &node, IMPATIENT).is_err());

    want(&host, 4, &[], &["card2"]);
    await_place(&host, 4, "card2", |place| *place == PortPlace::Attached);
    host.agent_end();
    host.agent_stop();
    assert_eq!(really(&host, "card2"), QUARANTINE, "a host that serves no longer");
}

#[test]
fn only_what_the_host_names_is_touched_and_what_cannot_be_is_told() {
    let (mut host, ..) = host("named");
    host.ip(&["link", "add", "own0", "type", "bridge"]);
    host.ip(&["link", "set", "own0", "up"]);
    host.ip(&["link", "add", "other0", "type", "bridge"]);
    host.ip(&["link", "set", "card2", "master", "other0"]);
    host.ip(&["link", "del", "card1"]);
    want(&host, 1, &[], &["own0", "card1", "card2", "../x"]);
    host.agent_start();
    let failed = |host: &Host, port: &str, word: &str| {
        await_place(
            host,
            1,
            port,
            |place| matches!(place, PortPlace::Failed { reason } if reason.contains(word)),
        );
    };
    failed(&host, "own0", "not among the node_ports");
    failed(&host, "card1", "no such interface");
    failed(&host, "card2", "another bridge");
    assert_eq!(really(&host, "own0"), (None, true), "it is the host's own");
    assert_eq!(really(&host, "card2").0.as_deref(), Some("other0"), "another agent may have it");
    until("the boot services serve all the same", || {
        (host.control_plane.status()?.netboot == ServiceStatus::Listening).then_some(())
    });
    // It is given up there, and comes here.
    host.ip(&["link", "set", "card2", "nomaster"]);
    await_place(&host, 1, "card2", |place| *place == PortPlace::Attached);
}
