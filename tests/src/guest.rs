//! A fresh agent host that is a machine of its own: it boots an image that `infra/agent-host/image` made, is told by its first
//! boot's user data who it is, and has a shell for its operator afterwards.
//!
//! Deliberately absent: anything that the operator of a real host would not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::agent_host::Bridged;
use crate::deployment::Deployment;
use crate::host::{repository, run, until};
use crate::management::Management;
use crate::node::Node;

/// Boots are slow without KVM, and this one sets a machine up.
pub const GUEST_BOOT: Duration = Duration::from_secs(600);
/// The host's two network cards: the management network's, and that of the nodes.
const MANAGEMENT: &str = "52:54:00:a6:00:01";
const UPLINK: &str = "52:54:00:a6:00:02";
/// The host's address on the management network.
const ADDRESS: &str = "10.99.0.20";
/// How long a command there may take, in seconds.
const COMMAND: &str = "120";

/// A switch in the management network's namespace, to which the nodes are cabled; it leads nowhere else.
#[derive(Debug)]
pub struct Rack<'a> {
    management: &'a Management,
    directory: PathBuf,
}

impl<'a> Rack<'a> {
    /// A switch without a cable in it.
    #[must_use]
    pub fn new(management: &'a Management, deployment: &Deployment) -> Self {
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

/// Makes an image of an agent's host with the programs as they were built, with containers, and with the
/// control plane. Packages are fetched.
#[must_use]
pub fn guest_image(golden: &Path, at: &Path, packages: &[&str]) -> PathBuf {
    let image = at.join("agent-host.raw");
    let profile = std::env::var("BMI_PROFILE").unwrap_or_else(|_| "debug".to_owned());
    let containers = crate::engine::images();
    let words = ["--profile", &profile, "--containers", containers.to_str().unwrap()];
    let packages: Vec<&str> = packages.iter().flat_map(|name| ["--package", *name]).collect();
    let files = [golden.to_str().unwrap(), image.to_str().unwrap()];
    run(repository().join("infra/agent-host/image"), &[&words[..], &packages, &files].concat());
    image
}

/// The digest of a container image, without what kind of digest it is.
fn digest(key: &str) -> String {
    let lines = fs::read_to_string(crate::engine::images().join("images.toml")).unwrap();
    let begin = format!("{key} = \"sha256:");
    let found = lines.lines().find_map(|line| line.strip_prefix(&begin)?.strip_suffix('"'));
    found.unwrap_or_else(|| panic!("no {key} in {lines}")).to_owned()
}

/// The host.
#[derive(Debug)]
pub struct AgentGuest {
    /// The machine.
    pub machine: Node,
    key: PathBuf,
}

impl AgentGuest {
    /// Switches the host of the network `provisioning` on for the first time.
    #[must_use]
    pub fn start(rack: &Rack<'_>, image: &Path, deployment: &Deployment) -> Self {
        let key = deployment.data.join("operator");
        let name = key.to_str().unwrap();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", name]);
        let public = fs::read_to_string(format!("{name}.pub")).unwrap();
        let seed = seed(deployment, public.trim());
        let nics = [&*format!("{MANAGEMENT}@mgmt0"), UPLINK];
        Self { machine: Node::start_with_disks(rack, &nics, image, &seed), key }
    }

    /// Does something in a shell there; gives its exit status and what it printed.
    #[must_use]
    pub fn shell_try(&self, script: &str) -> (Option<i32>, String) {
        let ran =
            self.ssh("ssh").arg(format!("root@{ADDRESS}")).arg(format!("set -e; {script}")).output().unwrap();
        let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (ran.status.code(), said.concat())
    }

    /// Does something in a shell there, which must succeed; gives what it printed.
    pub fn shell(&self, script: &str) -> String {
        let (status, said) = self.shell_try(script);
        assert_eq!(status, Some(0), "{script}: {said}\n{}", self.log());
        said
    }

    /// Waits until something in a shell there succeeds; gives what it printed.
    pub fn shell_until(&self, what: &str, script: &str) -> String {
        until(what, GUEST_BOOT, || {
            let (status, said) = self.shell_try(script);
            (status == Some(0)).then_some(said)
        })
    }

    /// Puts a file there.
    pub fn put(&self, file: &Path, to: &str) {
        let ran = self.ssh("scp").arg(file).arg(format!("root@{ADDRESS}:{to}")).output().unwrap();
        assert!(ran.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&ran.stderr));
    }

    /// Runs one test of another program of tests there, for what the kernel of this machine has not; gives what it printed.
    ///
    /// The program finds the others where they were built. `infra/agent-host/image` has put them below `/usr/local/sbin`.
    pub fn test(&self, program: &str, test: &str) -> String {
        let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let is_it = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(stem, rest)| stem == program && !rest.contains('.'))
        };
        let built = fs::read_dir(&deps).unwrap().map(|entry| entry.unwrap().path()).filter(is_it);
        let newest = built.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
        let newest =
            newest.unwrap_or_else(|| panic!("build {program} first: cargo build --workspace --tests"));
        let (directory, built) = (tempfile::tempdir().unwrap(), deps.parent().unwrap().display());
        let file = directory.path().join(program);
        run("strip", &["-o", file.to_str().unwrap(), newest.to_str().unwrap()]);
        self.put(&file, "/root/");
        self.shell(&format!(
            "mkdir -p {built}; ln -sf /usr/local/sbin/bmi-* {built}/; /root/{program} --exact {test} 2>&1"
        ))
    }

    fn ssh(&self, program: &str) -> Command {
        let mut ssh = Command::new("timeout");
        ssh.args([COMMAND, program, "-i"]).arg(&self.key);
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            ssh.args(["-o", option]);
        }
        ssh
    }

    /// What the agent and the control plane have logged there.
    #[must_use]
    pub fn log(&self) -> String {
        self.shell_try("journalctl --no-pager -n 60 -o cat -u bmi-agent -u bmi-control-plane -u docker").1
    }
}

/// What the host reads at its first boot: the user data of `infra/systemd` with what is in capitals filled in, the operator's
/// key, and which network card is which.
fn seed(deployment: &Deployment, public: &str) -> PathBuf {
    let at = &deployment.data;
    let token = deployment.api.join_token("provisioning");
    let user_data = fs::read_to_string(repository().join("infra/systemd/cloud-init.yaml")).unwrap();
    let (head, settings) = user_data.split_once("\nwrite_files:").unwrap();
    let server = deployment.agents_address().to_string();
    let filled = [
        ("TOKEN", &*token),
        ("NETWORK", "provisioning"),
        ("CONTROL-PLANE:8441", &server),
        ("UPLINK", "uplink"),
        ("TARGET-IMAGE", &digest("target_image")),
        ("NETBOOT-IMAGE", &digest("netboot_image")),
    ];
    let settings = filled.iter().fold(settings.to_owned(), |text, (name, value)| {
        assert!(text.contains(name), "{name}");
        text.replace(name, value)
    });
    let operator =
        format!("disable_root: false\nssh_genkeytypes: [ed25519]\nssh_authorized_keys: [\"{public}\"]\n");
    let cards = format!(
        "version: 2\nethernets:\n  mgmt:\n    match: {{macaddress: '{MANAGEMENT}'}}\n    set-name: mgmt\n    \
         addresses: [{ADDRESS}/24]\n  uplink:\n    match: {{macaddress: '{UPLINK}'}}\n    set-name: uplink\n    \
         link-local: []\n    optional: true\n"
    );
    let files = [
        ("user-data", format!("{head}\nwrite_files:{settings}\n{operator}")),
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
