//! A fresh agent host that joins with no hands: a machine of its own boots an image with the programs on it, is told by its first
//! boot's user data who it is, and serves the network under the units that are shipped: with targets in containers, with targets
//! as processes, both with a broker in between to a Ceph elsewhere; and at last as a flat deployment, with volumes of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use bmi_tests::{
    AgentGuest, Ceph, Client, Deployment, Disk, GUEST_BOOT, Management, Rack, Session, golden_image,
    guest_image, repository, until,
};
use serde_json::json;

/// Machines of the network: one with an instance, and one that nobody knows.
const NODE: &str = "52:54:00:a6:00:03";
const STRANGER: &str = "52:54:00:a6:00:04";

/// The node's connections to its target: another session would have another port.
fn connections(client: &Client) -> String {
    let shown = client.inside("ss", &["-Htn", "state", "established", "dport", "=", ":3260"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.lines().map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The number of a process there; nothing when there is none.
fn pid(guest: &AgentGuest, program: &str) -> Option<String> {
    let (status, said) = guest.shell_try(&format!("pgrep -f '^/?{program} '"));
    assert!(said.lines().count() <= 1, "more than one {program}: {said}");
    (status == Some(0)).then(|| said.trim().to_owned())
}

/// What serves a node, and the boot services.
fn servers(guest: &AgentGuest) -> [Option<String>; 3] {
    ["bmi-netboot", "bmi-target", "bmi-broker"].map(|program| pid(guest, program))
}

/// The node's disk, as soon as it is offered.
fn disk_of(client: &Client) -> Disk {
    until("the boot script has a disk", GUEST_BOOT, || {
        client.script(&client.dhcp().1).contains("set username").then_some(())
    });
    Disk::of(client)
}

#[test]
fn a_fresh_host_joins_with_no_hands_and_serves_under_the_units_that_are_shipped() {
    // First of all: packages for it are fetched, and from the management network nothing leads to where they are.
    let golden = golden_image();
    let directory = tempfile::tempdir_in(golden.parent().unwrap()).unwrap();
    let image =
        guest_image(&golden, directory.path(), &["xfsprogs", "qemu-utils", "libpq5", "busybox-static"]);
    let management = Management::enter();
    // Of this test's own: it is where the management network is.
    let ceph = Ceph::start_on(&management);
    let mut deployment = Deployment::start_in_ceph(&ceph);
    deployment.agents_configure("10.99.0.1", 86_400);
    let api = &deployment.api;
    api.project("lab");
    api.network("provisioning", "10.77.0.0/24");
    api.image("lab", "small");
    api.node_of("node-1", NODE, "lab");
    let rack = Rack::new(&management, &deployment);
    let mut guest = AgentGuest::start(&rack, &image, &deployment);

    joins(&mut guest, &deployment);
    // A machine that is cabled to it is answered, though nobody knows it.
    let stranger = Client::new(&rack, "stranger", STRANGER);
    let (address, script) = stranger.dhcp();
    assert!(address.starts_with("10.77.0.") && script.starts_with("http://10.77.0."), "{address} {script}");
    drop(stranger);
    let client = Client::new(&rack, "node", NODE);
    in_containers(&guest, &deployment, &client);
    as_processes(&guest, &deployment, &client);
    drop(client);
    flat(&guest, &deployment, &Client::new(&rack, "node", NODE));
    vlan(&guest);
}

/// It joins by its first boot alone, and has nothing to complain of.
fn joins(guest: &mut AgentGuest, deployment: &Deployment) {
    guest.machine.wait("the agent has joined", GUEST_BOOT, |_| !deployment.api.list("/v1/agents").is_empty());
    guest.machine.wait("its boot services listen", GUEST_BOOT, |_| {
        let network = deployment.api.get("/v1/networks/provisioning").expect(200);
        network["agent"]["netboot"] == "listening"
    });
    let agents = deployment.api.list("/v1/agents");
    assert_eq!((agents.len(), &agents[0]["state"]), (1, &json!("active")), "{agents:?}");
    let console = guest.machine.console();
    assert!(console.contains("this host can serve the network"), "{console}");
    // Of all that could be weaker it is only what Debian's kernel does not have yet.
    let mut weaker = console.lines().filter(|line| line.contains("weaker than it could be"));
    assert!(weaker.all(|line| line.contains("the kernel's Landlock does not know ports")), "{console}");
}

/// Targets and boot services in containers of Docker; the agent is started again under a node that has its disk open.
fn in_containers(guest: &AgentGuest, deployment: &Deployment, client: &Client) {
    deployment.api.instance("lab", "node-1", "small", &json!({"user_data": "#!/bin/sh\n"}));
    let disk = Disk::of(client);
    assert!(disk.is_same_as(deployment.data.join("images/small.raw").to_str().unwrap()));

    let containers = guest.shell("docker ps --format '{{.Names}}'");
    assert_eq!(containers.lines().count(), 2, "{containers}");
    restart_under(guest, client, &disk);
}

/// The agent is started again while a node has its disk open.
fn restart_under(guest: &AgentGuest, client: &Client, disk: &Disk) {
    let main = || guest.shell("systemctl show -P MainPID bmi-agent");
    let (before, agent) = (servers(guest), main());
    let mut session = Session::open(disk);
    session.does("write -P 7 4k 4k");
    let connected = connections(client);
    assert_eq!(connected.lines().count(), 1, "{connected}");
    guest.shell("systemctl restart bmi-agent");
    session.does("write -P 8 8k 4k");
    // It has done a round, and left everything as it is.
    let found = format!(
        "[ $(journalctl _PID=$(pgrep -f '^/proc/self/exe helper ') | grep -c 'found running') = {} ]",
        before.iter().flatten().count()
    );
    guest.shell_until("it has found what runs", &found);
    session.does("read -P 7 4k 4k");
    assert_eq!(connections(client), connected, "the same session");
    session.close();
    assert_ne!(main(), agent, "another agent");
    assert_eq!(servers(guest), before, "the same servers");
}

/// The same instance with the other driver, as operations.md has it; then it is released.
fn as_processes(guest: &AgentGuest, deployment: &Deployment, client: &Client) {
    guest.shell("systemctl stop bmi-agent; bmi-agent stop");
    assert_eq!((servers(guest), &*guest.shell("docker ps -aq")), ([None, None, None], ""));
    guest.shell("sed -i -e '/^driver = /d' -e '/^\\[container\\]/,$d' /etc/bmi/agent.toml");
    guest.shell("bmi-agent check; systemctl start bmi-agent");
    until("all three are there", GUEST_BOOT, || servers(guest).iter().all(Option::is_some).then_some(()));
    let disk = disk_of(client);
    assert_eq!(guest.shell("docker ps -aq"), "");
    // What the node wrote is there, and it can write on.
    let done =
        disk.does(&["read -P 7 4k 4k", "read -P 8 8k 4k", "write -P 9 16k 4k", "flush", "read -P 9 16k 4k"]);
    assert!(done.contains("wrote 4096/4096") && !done.contains("failed"), "{done}");
    restart_under(guest, client, &disk);
    deployment.api.instance_remove("lab", "node-1");
    until("only the boot services are left", GUEST_BOOT, || {
        let [netboot, target, broker] = servers(guest);
        (netboot.is_some() && target.is_none() && broker.is_none()).then_some(())
    });
}

/// The units as they are shipped, with the configuration that is shipped: a control plane and its store on the same host, as
/// deploy-flat.md has it.
fn flat(guest: &AgentGuest, deployment: &Deployment, client: &Client) {
    guest.shell("systemctl disable --now bmi-agent; bmi-agent stop; rm -r /var/lib/bmi/agent");
    let shipped = repository().join("infra/systemd");
    guest.put(&shipped.join("bmi-control-plane.service"), "/etc/systemd/system/");
    guest.put(&shipped.join("control-plane.toml"), "/etc/bmi/");
    guest.put(&shipped.join("agent.toml"), "/etc/bmi/");
    let small = deployment.data.join("images/small.raw");
    guest.put(&small, "/root/");
    guest.shell("sed -i 's/^size = .*/size = \"400M\"/' /etc/bmi/control-plane.toml");
    guest.shell("sed -i 's/^uplink = .*/uplink = \"uplink\"/' /etc/bmi/agent.toml");
    guest.shell(
        "bmi-control-plane check-config; systemctl daemon-reload; systemctl enable --now bmi-control-plane",
    );
    guest.shell_until("nothing is wrong with the host", "bmi-agent check");
    guest.shell("systemctl enable --now bmi-agent");
    let bmi = "export BMI_TOKEN_FILE=/var/lib/bmi/control-plane/admin.token BMI_PROJECT=lab";
    guest.shell(&format!(
        "{bmi}; bmi project create lab; bmi network create provisioning --cidr 10.77.0.0/24
         bmi node create rack-1 --mac {NODE}; bmi node assign rack-1
         bmi image upload small --file /root/small.raw --format raw --seal --wait
         bmi instance provision web --node rack-1 --image small --network provisioning --wait"
    ));
    let disk = disk_of(client);
    assert!(disk.is_same_as(small.to_str().unwrap()));
    restart_under(guest, client, &disk);
    guest.shell(&format!("{bmi}; bmi instance deprovision web --wait"));
    assert!(matches!(servers(guest), [Some(_), None, None]));
}

/// A VLAN that the agent makes, and a node in it, by the host's kernel: that of the machine which runs the tests may have none.
fn vlan(guest: &AgentGuest) {
    guest.shell("systemctl disable --now bmi-agent bmi-control-plane; bmi-agent stop");
    let said = guest.test("segments", "a_vlan_is_made_on_its_card_or_it_is_said_that_this_kernel_has_none");
    assert!(said.contains("1 passed; 0 failed") && !said.contains("SKIPPED"), "{said}");
}
