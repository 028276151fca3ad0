//! A fresh agent host that joins with no hands: a machine of its own boots an image with the programs on it, is told by its first
//! boot's user data who it is, and serves the network.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi_tests::{Bridged, Client, Deployment, Management, Node, golden_image, repository, run};

/// Boots are slow without KVM, and this one sets a machine up.
const BOOT: Duration = Duration::from_secs(600);
/// The host's two network cards: the management network's, and that of the nodes.
const MANAGEMENT: &str = "52:54:00:a6:00:01";
const UPLINK: &str = "52:54:00:a6:00:02";
/// The host's address on the management network.
const ADDRESS: &str = "10.99.0.20";
/// A machine of the network.
const NODE: &str = "52:54:00:a6:00:03";

/// A switch in the management network's namespace, to which the nodes are cabled; it leads nowhere else.
struct Rack<'a> {
    management: &'a Management,
    directory: PathBuf,
}

impl<'a> Rack<'a> {
    fn new(management: &'a Management, deployment: &Deployment) -> Self {
        run("ip", &["link", "add", "bmi0", "type", "bridge"]);
        run("ip", &["link", "set", "bmi0", "up"]);
        Self { management, directory: deployment.data.clone() }
    }
}

impl Bridged for Rack<'_> {
    fn bridge_namespace(&self) -> &str {
        self.management.namespace()
    }

    fn directory(&self) -> &Path {
        &self.directory
    }
}

/// An image of an agent's host with the programs as they were built.
fn image(golden: &Path, at: &Path) -> PathBuf {
    let image = at.join("agent-host.raw");
    let profile = std::env::var("BMI_PROFILE").unwrap_or_else(|_| "debug".to_owned());
    let words = ["--profile", &profile, golden.to_str().unwrap(), image.to_str().unwrap()];
    run(repository().join("infra/agent-host/image"), &words);
    image
}

/// What the host reads at its first boot: the user data of `infra/systemd` with what is in capitals filled in, and which network card
/// is which.
fn seed(at: &Path, deployment: &Deployment) -> PathBuf {
    let token = deployment.api.join_token("provisioning");
    let user_data = fs::read_to_string(repository().join("infra/systemd/cloud-init.yaml")).unwrap();
    let (head, settings) = user_data.split_once("\nwrite_files:").unwrap();
    let server = deployment.agents_address().to_string();
    let filled = [
        ("TOKEN", &*token),
        ("NETWORK", "provisioning"),
        ("CONTROL-PLANE:8441", &server),
        ("UPLINK", "uplink"),
    ];
    let settings = filled.iter().fold(settings.to_owned(), |text, (name, value)| {
        assert!(text.contains(name), "{name}");
        text.replace(name, value)
    });
    let cards = format!(
        "version: 2\nethernets:\n  mgmt:\n    match: {{macaddress: '{MANAGEMENT}'}}\n    set-name: mgmt\n    \
         addresses: [{ADDRESS}/24]\n  uplink:\n    match: {{macaddress: '{UPLINK}'}}\n    set-name: uplink\n    \
         link-local: []\n    optional: true\n"
    );
    let files = [
        ("user-data", format!("{head}\nwrite_files:{settings}")),
        ("meta-data", "instance-id: agent-host-1\nlocal-hostname: agent-host\n".to_owned()),
        ("network-config", cards),
    ];
    let seed = at.join("seed.img");
    run("truncate", &["-s", "4M", seed.to_str().unwrap()]);
    run("mkfs.vfat", &["-n", "CIDATA", seed.to_str().unwrap()]);
    for (name, text) in files {
        let file = at.join(name);
        fs::write(&file, text).unwrap();
        run("mcopy", &["-i", seed.to_str().unwrap(), file.to_str().unwrap(), &format!("::{name}")]);
    }
    seed
}

#[test]
fn a_fresh_host_joins_with_no_hands_and_serves_the_network() {
    // First of all: packages for it are fetched, and from the management network nothing leads to where they are.
    let golden = golden_image();
    let directory = tempfile::tempdir_in(golden.parent().unwrap()).unwrap();
    let image = image(&golden, directory.path());
    let management = Management::enter();
    let mut deployment = Deployment::start(bmi_tests::STORE_SMALL);
    deployment.agents_configure("10.99.0.1", 86_400);
    deployment.api.network("provisioning", "10.77.0.0/24");
    let rack = Rack::new(&management, &deployment);
    let seed = seed(&deployment.data, &deployment);
    let nics = [&*format!("{MANAGEMENT}@mgmt0"), UPLINK];
    let mut host = Node::start_with_disks(&rack, &nics, &image, &seed);

    host.wait("the agent has joined", BOOT, |_| !deployment.api.list("/v1/agents").is_empty());
    host.wait("its boot services listen", BOOT, |_| {
        let network = deployment.api.get("/v1/networks/provisioning").expect(200);
        network["agent"]["netboot"] == "listening"
    });
    let agents = deployment.api.list("/v1/agents");
    assert_eq!((agents.len(), &agents[0]["state"]), (1, &serde_json::json!("active")), "{agents:?}");

    // A machine that is cabled to it is answered, though nobody knows it.
    let machine = Client::new(&rack, "node", NODE);
    let (address, script) = machine.dhcp();
    assert!(address.starts_with("10.77.0.") && script.starts_with("http://10.77.0."), "{address} {script}");
    drop(machine);
    drop(host);
}
