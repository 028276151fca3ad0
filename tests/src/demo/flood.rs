//! A node that was taken over floods its network (`flood.py`): what that does to the other node of its tenant, and to the other
//! tenant's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};

use serde_json::{Value, json};

use super::Narrator;
use super::inside::containers;
use super::neighbour::{Neighbour, work_goes_on};
use super::scan::{Place, mac_of, program};
use super::tenant::{Tenant, node};
use super::wire::Network;
use crate::agent_host::AgentHost;
use crate::client::Client;

/// How long it floods, in seconds.
const SECONDS: u32 = 5;
/// The most frames that it sends; a processor sends less in this time.
const FRAMES: u32 = 3_000_000;

/// The processes that serve nodes, by their addresses.
fn servers(hosts: &[AgentHost]) -> BTreeMap<String, String> {
    let all = hosts.iter().flat_map(|host| containers(&host.engine));
    all.map(|inside| (inside.address, inside.pid)).collect()
}

/// Floods from the place of a tenant's first node. All other nodes work on meanwhile, and who serves them is who did before.
pub(super) fn disturb(
    narrator: &Narrator,
    (tenant, host): (&Tenant, &AgentHost),
    hosts: &[AgentHost],
    neighbours: &[Neighbour],
) {
    let before = servers(hosts);
    let network = Network::look(tenant, host, neighbours);
    let machine = Client::new(host, "flooder", &node(tenant.project, 1).1);
    let (source, _) = machine.dhcp();
    let place = Place {
        namespace: machine.namespace(),
        interface: "eth0",
        source: &source,
        far_end: (&host.namespace, "port-flooder"),
    };
    let world = json!({
        "interface": place.interface, "source": source, "mac": mac_of(place.namespace, place.interface),
        "netboot": [network.netboot_place()], "targets": network.target_places(),
        "nodes": [network.neighbour_place()], "elsewhere": network.other_places(),
        "seconds": SECONDS, "most": FRAMES,
    });
    let arrived = place.arrived();
    let mut child = program(place.namespace, "flood.py").spawn().unwrap();
    child.stdin.take().unwrap().write_all(world.to_string().as_bytes()).unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "floods\n");
    let mut told = String::new();
    work_goes_on(neighbours, "a flood", || said.read_to_string(&mut told).unwrap());
    assert!(child.wait().unwrap().success());
    let told: Value = serde_json::from_str(&told).unwrap();
    let (sent, arrived) = (told["sent"].as_u64().unwrap(), place.arrived() - arrived);
    assert!(sent > 0 && arrived >= sent, "{sent} frames were sent, {arrived} were on the wire");
    assert_eq!(servers(hosts), before, "who serves is who did before");
    narrator.say(&format!(
        "a node of {} sends {sent} frames in {SECONDS} s: the other nodes write on, in its own network too",
        tenant.project
    ));
}
