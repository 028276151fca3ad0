//! A host for one agent: a network namespace of its own, directories, a control plane that says what the test wants, and
//! nodes on the bridge. Everything is removed when it goes out of scope.

pub mod ceph;
pub mod conformance;
pub mod control_plane;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bmi_agent_api::desired::{
    Backing, DesiredInstance, DesiredLun, DesiredNetwork, DesiredState, DesiredTarget,
};
use bmi_agent_api::event::{About, AgentEvent, EventSource, HostEvent};
use bmi_agent_api::status::ServiceStatus;
use bmi_tests::engine::{Engine, Kind};
use bmi_types::{
    Architecture, BootKey, BootNumber, DhcpMode, InstanceId, Iqn, MacAddr, NetworkId, NetworkPlan, NodeId,
    Segment,
};
use control_plane::ControlPlane;
use serde_json::Value;

/// First user id used by tests.
pub const UID_BASE: u32 = 310_000;

/// How long anything may take: a loaded machine, not the agent, sets this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program that must succeed, and gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {} {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program.
pub fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Ends the agents of a test that was killed, before this program starts its first: they would remove what this one runs with the
/// same users. Nothing else has these users on a machine of tests.
fn strangers_end() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let users = UID_BASE..UID_BASE + 1000;
        for stranger in bmi_tests::processes().into_iter().filter(|it| users.contains(&it.uid)) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(stranger.pid).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
}

/// Waits until something holds.
pub fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The host.
pub struct Host {
    pub namespace: String,
    pub state: tempfile::TempDir,
    sockets: tempfile::TempDir,
    pub control_plane: ControlPlane,
    agent: Option<Child>,
    nodes: Vec<String>,
    /// What is in the configuration besides: keys that belong to no section, and sections.
    keys: String,
    sections: String,
    /// The engine that runs its containers.
    pub engine: Option<Engine>,
}

impl Host {
    /// Makes the host and starts nothing but the engine that the environment asks for.
    pub fn new(name: &str) -> Self {
        match Kind::asked_for() {
            Some(kind) => Self::with_engine(name, kind, &bmi_tests::engine::images()),
            None => Self::without_engine(name),
        }
    }

    /// Makes the host and starts nothing: targets are processes.
    pub fn without_engine(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces");
        for program in ["bmi-target", "bmi-netboot"] {
            let path = Path::new(env!("CARGO_BIN_EXE_bmi-agent")).with_file_name(program);
            assert!(path.exists(), "build it first: cargo build -p bmi-target -p bmi-netboot");
        }
        strangers_end();
        let namespace = format!("bmi-{name}-{}", std::process::id());
        run("ip", &["netns", "add", &namespace]);
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("volumes")).unwrap();
        let sockets = tempfile::tempdir().unwrap();
        fs::set_permissions(sockets.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let socket = sockets.path().join("agent.sock");
        let control_plane = ControlPlane::start(&socket);
        chown(&socket, Some(UID_BASE), Some(UID_BASE)).unwrap();
        let host = Self {
            namespace,
            state,
            sockets,
            control_plane,
            agent: None,
            nodes: Vec::new(),
            keys: String::new(),
            sections: String::new(),
            engine: None,
        };
        fs::write(host.config(), host.config_text()).unwrap();
        host
    }

    /// The same with an engine that runs targets and boot services in containers of the images in a directory.
    pub fn with_engine(name: &str, kind: Kind, images: &Path) -> Self {
        let mut host = Self::without_engine(name);
        let engine = Engine::start(kind, &host.namespace);
        host.configure(&engine.agent_settings(images));
        host.engine = Some(engine);
        host
    }

    /// Adds to the configuration: keys that belong to no section first, then sections.
    pub fn configure(&mut self, more: &str) {
        let sections = more.lines().position(|line| line.starts_with('[')).unwrap_or(usize::MAX);
        for (at, line) in more.lines().enumerate() {
            let text = if at < sections { &mut self.keys } else { &mut self.sections };
            text.extend([line, "\n"]);
        }
        fs::write(self.config(), self.config_text()).unwrap();
    }

    /// Runs `ip` in the host's namespace.
    pub fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-n", &self.namespace][..], arguments].concat())
    }

    /// One link of the host's namespace, as `ip -d -j` shows it; nothing when it is not there.
    pub fn link(&self, name: &str) -> Option<Value> {
        let shown = output("ip", &["-n", &self.namespace, "-d", "-j", "link", "show", "dev", name]);
        let links: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        links.get(0).cloned().filter(|_| shown.status.success())
    }

    /// Ends the agent in good order; what it made stays.
    pub fn agent_end(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        agent.wait().unwrap();
    }

    /// `bmi-agent stop`, as an operator would.
    pub fn agent_stop(&self) {
        let config = self.config();
        let stop =
            [&*self.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "stop", "--config", config.to_str().unwrap()];
        let stopped = output("ip", &[&["netns", "exec"][..], &stop].concat());
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    }

    /// Waits until the boot services are as said.
    pub fn await_netboot(&self, is: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        until("the boot services' status", || self.control_plane.status().map(|it| it.netboot).filter(&is))
    }

    /// The container of a process.
    pub fn container(&self, process: &str) -> String {
        format!("bmi-bmi0-{process}")
    }

    pub fn config(&self) -> PathBuf {
        self.state.path().join("agent.toml")
    }

    fn config_text(&self) -> String {
        self.config_text_with("")
    }

    /// With more keys, that belong to no section.
    fn config_text_with(&self, keys: &str) -> String {
        let state = self.state.path().display();
        format!(
            "network = \"lab\"\ncontrol_plane = \"unix:{}\"\nstate_dir = \"{state}/agent\"\n\
             volume_dir = \"{state}/volumes\"\nbridge = \"bmi0\"\nloaders = \"/usr/lib/ipxe\"\nuid_base = {UID_BASE}\n\
             {keys}{}{}",
            self.sockets.path().join("agent.sock").display(),
            self.keys,
            self.sections,
        )
    }

    /// Has another program run instead of `bmi-target`, without some barriers of the sandbox.
    pub fn target_program(&self, program: &Path, without: &[&str]) {
        let keys = format!("target_program = \"{}\"\nsandbox_without = {without:?}\n", program.display());
        fs::write(self.config(), self.config_text_with(&keys)).unwrap();
    }

    /// Where the agent of [`Self::agent_start_logged`] writes its log.
    pub fn agent_log(&self) -> PathBuf {
        self.state.path().join("agent.log")
    }

    /// Starts the agent inside the namespace.
    pub fn agent_start(&mut self) {
        self.agent_start_to(Stdio::inherit());
    }

    /// The same for a test that reads its log; it is printed when the test fails.
    pub fn agent_start_logged(&mut self) {
        let log = fs::File::create(self.agent_log()).unwrap();
        self.agent_start_to(log.into());
    }

    fn agent_start_to(&mut self, log: Stdio) {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    /// Kills the agent as a crash would. `ip netns exec` has become the agent, so the child is the agent.
    ///
    /// Its other half is gone by itself soon, and what it said last is forgotten: whoever waits afterwards hears the next one.
    pub fn agent_kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
        let config = self.config();
        let is_ours =
            |command: &str| command.contains("bmi-agent") && command.contains(config.to_str().unwrap());
        until("the agent's other half ends", || {
            (!bmi_tests::processes().iter().any(|it| is_ours(&it.command))).then_some(())
        });
        self.control_plane.forget();
    }

    /// Has brokers reach Ceph where this test does: on the machine's own loopback. No file of the host is a disk then.
    pub fn ceph_reach(&self) {
        let network = format!("/proc/{}/ns/net", std::process::id());
        let (config, volumes) = (self.config_text(), self.state.path().join("volumes"));
        let config = config.replace(&format!("volume_dir = \"{}\"\n", volumes.display()), "");
        let text = format!("{config}[broker]\nnetwork_namespace = \"{network}\"\n");
        fs::write(self.config(), text).unwrap();
    }

    /// Has an interface put into the bridge as its uplink.
    pub fn uplink(&self, name: &str) {
        fs::write(self.config(), self.config_text_with(&format!("uplink = \"{name}\"\n"))).unwrap();
    }

    /// Has a namespace removed with the host.
    pub fn namespace_add(&mut self, name: &str) -> String {
        let namespace = format!("{}-{name}", self.namespace);
        run("ip", &["netns", "add", &namespace]);
        self.nodes.push(namespace.clone());
        namespace
    }

    /// The directory of a process.
    pub fn directory(&self, process: &str) -> PathBuf {
        self.state.path().join("agent/run").join(process)
    }

    /// The process id of a process.
    pub fn pid(&self, process: &str) -> i32 {
        self.pid_try(process).unwrap()
    }

    /// The same, when it runs.
    pub fn pid_try(&self, process: &str) -> Option<i32> {
        let record = fs::read(self.directory(process).join("record.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        i32::try_from(record["run"]["pid"].as_i64()?).ok()
    }

    /// Makes a volume of 1 MiB.
    pub fn volume(&self, name: &str) -> PathBuf {
        let path = self.state.path().join("volumes").join(name);
        fs::write(&path, vec![0x5a; 1024 * 1024]).unwrap();
        path
    }

    /// A machine on the bridge: a namespace with one interface of this MAC.
    pub fn node_unchecked(&mut self, number: u8, mac: MacAddr) -> String {
        let node = format!("{}-n{number}", self.namespace);
        let port = format!("node{number}");
        run("ip", &["netns", "add", &node]);
        self.nodes.push(node.clone());
        run(
            "ip",
            &[
                "-n",
                &self.namespace,
                "link",
                "add",
                &port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &node,
            ],
        );
        run("ip", &["-n", &self.namespace, "link", "set", &port, "master", "bmi0", "up"]);
        run("ip", &["-n", &node, "link", "set", "eth0", "address", &mac.to_string(), "up"]);
        node
    }

    /// The same, once the agent's rules know its port.
    pub fn node(&mut self, number: u8, mac: MacAddr) -> String {
        let node = self.node_unchecked(number, mac);
        // A test that expects drops between nodes needs them; the agent looks once a second.
        let port = format!("\"node{number}\"");
        until("the rules know the node's port", || self.nft().to_string().contains(&port).then_some(()));
        node
    }

    /// The rules in the host's namespace.
    pub fn nft(&self) -> Value {
        let text = run("ip", &["netns", "exec", &self.namespace, "nft", "-j", "list", "ruleset"]);
        serde_json::from_str(&text).unwrap()
    }

    /// The links in the host's namespace.
    pub fn links(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&run("ip", &["-n", &self.namespace, "-j", "link"])).unwrap();
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the agent reports this of an instance's target.
    pub fn await_target(&self, instance: InstanceId, wanted: &ServiceStatus) {
        until(&format!("{instance} is {wanted:?}"), || {
            let status = self.control_plane.status()?;
            let found = status.instances.iter().find(|found| found.id == instance)?;
            (found.target == *wanted).then_some(())
        });
    }

    /// What the agent has told of faults of its own work, oldest first.
    pub fn told(&self) -> Vec<HostEvent> {
        let said = |event: AgentEvent| match event.from {
            EventSource::Agent { said } => Some(said),
            _ => None,
        };
        self.control_plane.events().into_iter().filter_map(said).collect()
    }

    /// Waits until it was told that a table of rules was put in force again.
    pub fn await_restored(&self, table: &str) {
        until(&format!("the table {table} is there again"), || {
            let is = |said: &HostEvent| matches!(said, HostEvent::RulesRestored { table: of } if of == table);
            self.told().iter().any(is).then_some(())
        });
    }

    /// Waits until a fault with a reason was told.
    pub fn await_fault(&self, about: About, part: &str) {
        until(&format!("a fault of {about:?} is told: {part}"), || {
            self.told().iter().any(|said| is_fault(said, about, part)).then_some(())
        });
    }

    /// Waits until the last that was told of something is that it goes again.
    pub fn await_mended(&self, about: About) {
        until(&format!("{about:?} is mended"), || {
            let of = |said: &HostEvent| match said {
                HostEvent::Fault { about, .. } | HostEvent::Mended { about } => Some(*about),
                HostEvent::RulesRestored { .. } => None,
            };
            let last = self.told().into_iter().rfind(|said| of(said) == Some(about))?;
            matches!(last, HostEvent::Mended { .. }).then_some(())
        });
    }

    /// Waits until the agent reports that it worked on a generation and has just these instances.
    pub fn await_generation(&self, generation: u64, instances: usize) {
        until(&format!("generation {generation} with {instances} instances"), || {
            let status = self.control_plane.status()?;
            (status.generation_observed == generation && status.instances.len() == instances).then_some(())
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = agent.wait();
        }
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.agent_log())
        {
            eprintln!("{log}");
        }
        let config = self.config();
        let stop =
            [&*self.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "stop", "--config", config.to_str().unwrap()];
        let stopped = output("ip", &[&["netns", "exec"][..], &stop].concat());
        if !stopped.status.success() {
            eprintln!("bmi-agent stop: {}", String::from_utf8_lossy(&stopped.stderr));
        }
        for namespace in self.nodes.iter().chain([&self.namespace]) {
            let _ = output("ip", &["netns", "del", namespace]);
        }
    }
}

/// Asks DHCP as a client would, and gives the address and the boot file of the answer.
pub fn dhcp(host: &Host, node: &str, more: &[&str]) -> (String, String) {
    dhcp_try(host, node, more).unwrap()
}

/// The same, where no answer is one: then what the client said.
pub fn dhcp_try(host: &Host, node: &str, more: &[&str]) -> Result<(String, String), String> {
    let script = host.state.path().join("udhcpc.sh");
    fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] && echo \"BOUND $ip ${bootfile:-$boot_file}\"\nexit 0\n",
    )
    .unwrap();
    run("chmod", &["755", script.to_str().unwrap()]);
    let client =
        ["netns", "exec", node, "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-O", "bootfile", "-s"];
    let output = Command::new("ip").args(client).arg(&script).args(more).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bound =
        text.lines().find_map(|line| line.strip_prefix("BOUND ")).and_then(|line| line.split_once(' '));
    let error = || format!("{text} {}", String::from_utf8_lossy(&output.stderr));
    bound.map(|(address, file)| (address.to_owned(), file.to_owned())).ok_or_else(error)
}

/// Takes an address on a machine's NIC, and no other.
pub fn address_take(node: &str, address: &str) {
    run("ip", &["-n", node, "addr", "flush", "dev", "eth0"]);
    run("ip", &["-n", node, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
}

/// Fetches a URL on a machine; empty when there is no answer.
pub fn fetch(node: &str, url: &str) -> String {
    let curl = ["netns", "exec", node, "curl", "-sS", "--max-time", "3", url];
    String::from_utf8(output("ip", &curl).stdout).unwrap()
}

/// The same for a script with a secret, which the boot services know of a moment after its target listens.
pub fn script(node: &str, url: &str) -> String {
    until("a script with a secret", || {
        Some(fetch(node, url)).filter(|script| script.contains("set password "))
    })
}

/// Logs in from a machine as a boot script says, and out again. Gives whether that was possible.
pub fn login(node: &str, script: &str) -> bool {
    let value = |key: &str| script.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let (user, password) = (value("set username "), value("set password "));
    let boot = script.split_whitespace().find_map(|word| word.strip_prefix("iscsi:")).unwrap();
    let (address, disk) = boot.split_once("::3260:").unwrap();
    let (lun, target) = disk.split_once(':').unwrap();
    let url = format!("iscsi://{user}%{password}@{address}:3260/{target}/{lun}");
    let initiator = value("set initiator-iqn ");
    let inquiry = ["netns", "exec", node, "timeout", "5", "iscsi-inq", "-i", &initiator, &url];
    output("ip", &inquiry).status.success()
}

/// Whether a machine gets an answer to a ping.
pub fn pings(node: &str, address: &str) -> bool {
    output("ip", &["netns", "exec", node, "busybox", "ping", "-c", "1", "-W", "1", address]).status.success()
}

/// Whether a TCP connection from a namespace comes about.
pub fn connects(from: &str, to: &str, port: u16) -> bool {
    let script = format!("exec 3<>/dev/tcp/{to}/{port}");
    output("ip", &["netns", "exec", from, "timeout", "1.5", "bash", "-c", &script]).status.success()
}

/// The same, where it should: a connection that was begun while addresses or rules changed may be lost.
pub fn reaches(from: &str, to: &str, port: u16) -> bool {
    (0..5).any(|_| connects(from, to, port))
}

/// A field of `/proc/PID/status`.
pub fn proc_status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every process of a user that has not ended.
pub fn processes(uid: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nUid:\t{uid}\t")) && !status.contains("\nState:\tZ")
    };
    pids.filter(of).collect()
}

/// Whether a fault of this, with this in its reason, is what was told.
pub fn is_fault(said: &HostEvent, about: About, part: &str) -> bool {
    matches!(said, HostEvent::Fault { about: of, reason } if *of == about && reason.contains(part))
}

/// An instance on a node with the MAC `52:54:00:00:00:<number>`.
pub fn instance(number: u8, volume: &Path) -> DesiredInstance {
    let id: InstanceId = format!("0190163d-8694-739b-aea5-0000000000{number:02x}").parse().unwrap();
    let node: NodeId = format!("0190163d-8694-739b-aea5-0000000001{number:02x}").parse().unwrap();
    DesiredInstance {
        id,
        hostname: format!("node-{number}").parse().unwrap(),
        macs: vec![mac(number)],
        node_address: Some(format!("10.20.0.{}", 70 + number).parse().unwrap()),
        architecture: Architecture::X86_64,
        initiator: Iqn::node_initiator(node),
        target: DesiredTarget {
            iqn: Iqn::instance_target(id),
            address: format!("10.20.0.{}", 8 + number).parse().unwrap(),
            luns: vec![DesiredLun {
                lun: 0,
                backing: Backing::File { path: volume.to_owned() },
                read_only: false,
            }],
        },
        boot_key: BootKey::from_hex(&"07".repeat(32)).unwrap(),
        boot_floor: BootNumber::default(),
        ceph: None,
    }
}

/// The MAC of node `number`.
pub fn mac(number: u8) -> MacAddr {
    MacAddr::from_octets([0x52, 0x54, 0, 0, 0, number]).unwrap()
}

/// A desired state of the network `lab`.
pub fn desired(generation: u64, instances: Vec<DesiredInstance>) -> DesiredState {
    DesiredState {
        generation,
        mark: String::new(),
        network: DesiredNetwork {
            id: "0190163d-8694-739b-aea5-966c26f8ad00".parse::<NetworkId>().unwrap(),
            name: "lab".parse().unwrap(),
            plan: NetworkPlan::lay_out("10.20.0.0/24".parse().unwrap(), None, None, None, None).unwrap(),
            dhcp: DhcpMode::Authoritative,
            relays: Vec::new(),
            segment: Segment::None,
        },
        instances,
        ports: Vec::new(),
    }
}
