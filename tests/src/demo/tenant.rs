//! A tenant: somebody with a project, who signs in and uses the command line.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::{BOOT, Narrator};
use crate::agent_host::Bridged;
use crate::api::Api;
use crate::cli::Cli;
use crate::deployment::Deployment;
use crate::golden::golden_image;
use crate::host::run;
use crate::idp::OidcProvider;
use crate::node::{Firmware, Node};

/// A tenant.
pub(super) struct Tenant {
    /// Its project, which its network may be called like.
    pub project: &'static str,
    /// The network that it provisions on.
    pub network: &'static str,
    /// The command line, signed in.
    pub cli: Cli,
    /// The API, as the same person.
    pub api: Api,
}

/// A node's name and MAC.
pub(super) fn node(project: &str, number: u8) -> (String, String) {
    let group = project.bytes().fold(0_u8, |sum, byte| sum.wrapping_add(byte));
    (format!("{project}-{number}"), format!("52:54:00:{group:02x}:00:{number:02x}"))
}

impl Tenant {
    /// Makes a project with nodes, as the provider does, and has its owner sign in.
    pub(super) fn new(
        deployment: &Deployment,
        provider: &OidcProvider,
        (project, network, user): (&'static str, &'static str, &str),
        nodes: u8,
    ) -> Self {
        let api = &deployment.api;
        let member = json!({"subject": format!("user:corp:{user}"), "role": "project-admin"});
        api.post(&format!("/v1/projects/{project}/members"), &member).expect(201);
        for number in 1..=nodes {
            let (name, mac) = node(project, number);
            api.node_of(&name, &mac, project);
        }
        let state = deployment.data.join("state").join(user);
        std::fs::create_dir_all(&state).unwrap();
        let cli = deployment.cli(project).of_session(&state);
        let mut login =
            cli.command(&["login"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(login.stderr.take().unwrap()).lines().map(Result::unwrap);
        let code = said.by_ref().find_map(|line| line.strip_prefix("and enter the code ").map(str::to_owned));
        provider.device_decide(user, &code.unwrap(), "confirm");
        assert!(login.wait().unwrap().success(), "{user} cannot sign in");
        let api = api.authorized(Some(&format!("Bearer {}", provider.access_token(user))));
        Self { project, network, cli, api }
    }

    /// Uploads the golden image and seals it, as a file that somebody brings along.
    pub(super) fn upload(&self, deployment: &Deployment) {
        let file = deployment.data.join("images/debian-12.qcow2");
        let file = file.to_str().unwrap();
        if !std::path::Path::new(file).exists() {
            let from = golden_image();
            run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", from.to_str().unwrap(), file]);
        }
        self.cli
            .run(&["image", "upload", "debian-12", "--file", file, "--format", "qcow2", "--seal", "--wait"])
            .ok();
    }

    /// Provisions nodes by their numbers, one after the other.
    pub(super) fn provision(&self, nodes: &[u8]) {
        for number in nodes {
            let (name, _) = node(self.project, *number);
            let words = ["--node", &name, "--image", "debian-12", "--network", self.network, "--wait"];
            self.cli.run(&[&["instance", "provision", &name][..], &words].concat()).ok();
        }
    }

    /// Switches nodes on.
    pub(super) fn switch_on(
        &self,
        at: &impl Bridged,
        nodes: &[u8],
        firmware: Firmware,
    ) -> Vec<(String, Node)> {
        let on = nodes.iter().map(|number| {
            let (name, mac) = node(self.project, *number);
            let machine = Node::start(at, &mac, firmware);
            (name, machine)
        });
        on.collect()
    }

    /// Deprovisions everything that it has.
    pub(super) fn release(&self, nodes: &[u8]) {
        for number in nodes {
            let (name, _) = node(self.project, *number);
            self.cli.run(&["instance", "deprovision", &name, "--wait"]).ok();
        }
    }
}

/// Waits until nodes are at their login prompts.
pub(super) fn await_logins(narrator: &Narrator, nodes: &mut [(String, Node)]) {
    for (name, machine) in nodes {
        machine.wait_for(&format!("{name} login:"), BOOT);
        narrator.say(&format!("{name} is at its login prompt"));
    }
    // What it wrote last has arrived.
    std::thread::sleep(Duration::from_secs(1));
}
