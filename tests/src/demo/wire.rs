//! What is reached from the place of a node, with whatever MAC and address one likes: its own portal and the boot services, of
//! everything that the installation has.
//!
//! Every TCP and UDP port is asked, of the addresses on the node's network and of those that are elsewhere, nodes that are on among
//! them. No route leads there; so frames for them are sent to the agent's host, to the boot services and to the node's own target,
//! should one of these pass them on. What hears and says nothing is looked for in the kernel's tables.

use std::collections::BTreeSet;

use super::Narrator;
use super::inside::{Inside, containers, sockets_of_namespace};
use super::neighbour::{self, Neighbour};
use super::private::cidr;
use super::scan::{Answers, Found, Place, mac_of, scan};
use super::tenant::{Tenant, node};
use crate::agent_host::AgentHost;
use crate::client::Client;
use crate::host::output;
use crate::management::ADDRESS;

/// An address of a network.
pub(super) fn at(network: &str, number: u8) -> String {
    cidr(network).replace("0/24", &number.to_string())
}

/// What answers on a machine's network by nmap, which is not ours: address and port, TCP.
fn open_ports(machine: &Client, addresses: &[&str]) -> BTreeSet<(String, u16)> {
    let words =
        ["-n", "-Pn", "-sS", "-p-", "--min-rate", "20000", "--max-retries", "1", "-oG", "-", "--send-eth"];
    let scanned = machine.inside("nmap", &[&words[..], addresses].concat());
    let text = String::from_utf8_lossy(&scanned.stdout).into_owned();
    assert!(text.contains("# Nmap done"), "{text} {}", String::from_utf8_lossy(&scanned.stderr));
    let mut open = BTreeSet::new();
    for line in text.lines().filter(|line| line.contains("Ports:")) {
        let address = line.split_whitespace().nth(1).unwrap().to_owned();
        let ports = line.split("Ports: ").nth(1).unwrap_or_default().split(", ");
        for port in ports.filter(|port| port.contains("/open/")) {
            open.insert((address.clone(), port.trim().split('/').next().unwrap().parse().unwrap()));
        }
    }
    open
}

/// A tenant's network, as somebody finds it who has one of its nodes.
pub(super) struct Network<'a> {
    tenant: &'a Tenant,
    host: &'a AgentHost,
    /// Portals: of the node that is taken over, and of its neighbour.
    own: String,
    neighbours: String,
    inside: Vec<Inside>,
    /// The neighbour itself, and the other tenant's.
    neighbour: &'a Neighbour,
    other: &'a Neighbour,
}

impl<'a> Network<'a> {
    /// As it is now.
    pub(super) fn look(tenant: &'a Tenant, host: &'a AgentHost, neighbours: &'a [Neighbour]) -> Self {
        let portal = |number: u8| {
            let name = node(tenant.project, number).0;
            let path = format!("/v1/projects/{}/instances/{name}", tenant.project);
            tenant.api.get(&path).expect(200)["target_address"].as_str().unwrap().to_owned()
        };
        let (own, others): (Vec<_>, Vec<_>) = neighbours.iter().partition(|it| it.network == tenant.network);
        let ([neighbour], [other]) = (&own[..], &others[..]) else { panic!("one on each network") };
        Self {
            tenant,
            host,
            own: portal(1),
            neighbours: portal(neighbour::NUMBER),
            inside: containers(&host.engine),
            neighbour,
            other,
        }
    }

    fn netboot(&self) -> String {
        at(self.tenant.network, 2)
    }

    fn mac(&self, address: &str) -> String {
        self.inside.iter().find(|inside| inside.address == address).unwrap().mac.clone()
    }

    /// The boot services: their address, and the MAC to which frames for it go.
    pub(super) fn netboot_place(&self) -> (String, String) {
        (self.netboot(), self.mac(&self.netboot()))
    }

    /// The targets.
    pub(super) fn target_places(&self) -> [(String, String); 2] {
        [&self.own, &self.neighbours].map(|address| (address.clone(), self.mac(address)))
    }

    /// The node that is on.
    pub(super) fn neighbour_place(&self) -> (String, String) {
        (self.neighbour.address.clone(), self.neighbour.mac.clone())
    }

    /// The other tenant's node that is on, by way of each of ours that could pass frames on.
    pub(super) fn other_places(&self) -> Vec<(String, String)> {
        self.ways().map(|way| (self.other.address.clone(), way)).into()
    }

    fn ways(&self) -> [String; 3] {
        [mac_of(&self.host.namespace, "bmi0"), self.mac(&self.netboot()), self.mac(&self.own)]
    }

    /// What hears anything: a target TCP 3260, the boot services what they are for, the host nothing at all.
    fn listeners_check(&self) {
        assert_eq!(self.inside.len(), 3, "boot services and two targets: {:?}", self.inside);
        for Inside { address, other_addresses, sockets, .. } in &self.inside {
            let expected = if *address == self.netboot() {
                let own = ["tcp {}:80", "udp {}:67", "udp {}:69"].map(|it| it.replace("{}", address));
                own.into_iter().chain(["udp 0.0.0.0:67".to_owned()]).collect()
            } else {
                BTreeSet::from([format!("tcp {address}:3260")])
            };
            assert_eq!(*sockets, expected, "{address}: who listens");
            assert_eq!(other_addresses, &[""; 0], "{address} has no other address");
        }
        let host = sockets_of_namespace(&self.host.namespace);
        assert_eq!(host, BTreeSet::new(), "the agent's host listens on no network");
    }

    /// The addresses of the node's network, with the MACs to which frames for them are sent.
    fn near(&self) -> Vec<(String, String)> {
        let mut goals = vec![self.netboot_place(), self.neighbour_place()];
        goals.extend(self.target_places());
        // A router's usual places, and the agent's host there.
        let host = mac_of(&self.host.namespace, "bmi0");
        goals.extend([1, 254].map(|number| (at(self.tenant.network, number), host.clone())));
        goals
    }

    /// Every other address of the installation, by way of each of ours that could pass frames on. The kernel of an agent's host would
    /// take its own address on any interface.
    fn elsewhere(&self) -> Vec<(String, String)> {
        let other = if self.tenant.network == "red" { "blue" } else { "red" };
        let provider = [ADDRESS, "10.99.0.11", "10.99.0.12", "127.0.0.1"].map(str::to_owned);
        let theirs = [2, 8, 9, 10].map(|number| at(other, number));
        let (all, ways) = (provider.into_iter().chain(theirs), self.ways());
        let all = all.flat_map(|address| ways.clone().map(|way| (address.clone(), way)));
        all.chain(self.other_places()).collect()
    }

    /// Scans from a machine, and gives what answered and how many frames that took.
    ///
    /// What a target sends to a node whose port is gone, the bridge sends to every port: that is overheard (threat model), and
    /// nothing else is; of the neighbour, which is at work, not a single frame.
    fn scanned(&self, machine: &Client, name: &str, goals: &[(String, String)]) -> (Answers, u64) {
        let (source, _) = machine.dhcp();
        let port = format!("port-{name}");
        let place = Place {
            namespace: machine.namespace(),
            interface: "eth0",
            source: &source,
            far_end: (&self.host.namespace, &port),
        };
        let Found { answers, overheard, heard, sent } = scan(place, goals);
        let targets = BTreeSet::from([self.own.clone(), self.neighbours.clone()]);
        assert!(overheard.is_subset(&targets), "a {name} overhears {overheard:?}");
        assert!(!heard.contains(&self.neighbour.mac), "a {name} hears a node: {heard:?}");
        (answers, sent)
    }

    /// What the boot services answer to whom they know, and to whom they do not.
    fn boot_services(&self) -> Answers {
        let netboot = self.netboot();
        [("tcp", 80), ("udp", 67), ("udp", 69)]
            .map(|(what, port)| format!("{what} {netboot} {port} open"))
            .into()
    }
}

/// S5, and everything that can be reached.
pub(super) fn reach(narrator: &Narrator, tenant: &Tenant, host: &AgentHost, neighbours: &[Neighbour]) {
    let network = Network::look(tenant, host, neighbours);
    network.listeners_check();
    let own = &network.own;

    // The node itself, taken over: its MAC, and the address that DHCP gives it.
    let (_, mac) = node(tenant.project, 1);
    let machine = Client::new(host, "owned", &mac);
    let near = network.near();
    let goals = [near.clone(), network.elsewhere()].concat();
    let (found, sent) = network.scanned(&machine, "owned", &goals);
    let mut allowed = network.boot_services();
    allowed.insert(format!("tcp {own} 3260 open"));
    assert_eq!(found, allowed, "{}: what a node reaches", tenant.project);
    let addresses: BTreeSet<&String> = goals.iter().map(|(address, _)| address).collect();
    narrator.say(&format!(
        "a node of {} reaches its boot services and its own portal: {} addresses, every TCP and UDP port, {sent} frames",
        tenant.project,
        addresses.len()
    ));
    let (netboot, one, last) = (network.netboot(), at(tenant.network, 1), at(tenant.network, 254));
    let is_on = &network.neighbour.address;
    let found = open_ports(&machine, &[&netboot, own, &network.neighbours, is_on, &one, &last]);
    let allowed = BTreeSet::from([(netboot, 80), (own.clone(), 3260)]);
    assert_eq!(found, allowed, "{}: what a node reaches, by nmap", tenant.project);
    drop(machine);

    // A stranger, and one who says that it is another tenant's node: no secret and no portal for either.
    let other = if tenant.network == "red" { "blue" } else { "red" };
    for (name, mac) in [("stranger", "52:54:00:66:66:66".to_owned()), ("posing", node(other, 1).1)] {
        let machine = Client::new(host, name, &mac);
        let script = machine.script(&machine.dhcp().1);
        assert!(!script.contains("password"), "{name}: {script}");
        let words = ["netns", "exec", machine.namespace(), "timeout", "1", "bash", "-c"];
        let script = format!("exec 3<>/dev/tcp/{own}/3260");
        assert!(
            !output("ip", &[&words[..], &[&script]].concat()).status.success(),
            "{name} reaches a portal"
        );
        let (found, _) = network.scanned(&machine, name, &near);
        assert_eq!(found, network.boot_services(), "{}: what a {name} reaches", tenant.project);
    }
}
