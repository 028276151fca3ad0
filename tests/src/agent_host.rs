//! The host of one network's agent, apart from the control plane's: a network namespace with a cable to the management
//! network, an engine of its own, and an agent that joins by a token.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::deployment::Deployment;
use crate::engine::{Engine, Kind, images};
use crate::host::{command, end, namespace_make, output, run, until};
use crate::management::{Management, Switch};

/// How long an agent may take to join and start its boot services.
const START: Duration = Duration::from_secs(90);

/// Where nodes and machines can be plugged in.
pub trait Bridged {
    /// The namespace with the bridge `bmi0`.
    fn bridge_namespace(&self) -> &str;
    /// A directory for consoles and logs.
    fn directory(&self) -> &Path;
}

impl Bridged for Deployment {
    fn bridge_namespace(&self) -> &str {
        &self.namespace
    }

    fn directory(&self) -> &Path {
        &self.data
    }
}

/// The host.
#[derive(Debug)]
pub struct AgentHost {
    /// Its network namespace.
    pub namespace: String,
    /// Its engine.
    pub engine: Engine,
    /// Its directory.
    pub data: PathBuf,
    /// Its address on the management network.
    pub address: String,
    number: u8,
    program: PathBuf,
    agent: Option<Child>,
}

impl Bridged for AgentHost {
    fn bridge_namespace(&self) -> &str {
        &self.namespace
    }

    fn directory(&self) -> &Path {
        &self.data
    }
}

impl AgentHost {
    /// Makes the host number `number` for a network's agent, and starts its engine.
    #[must_use]
    pub fn new(deployment: &Deployment, number: u8, network: &str, kind: Kind) -> Self {
        let namespace = format!("{}-{network}{number}", deployment.namespace);
        namespace_make(&namespace);
        Management::cable(&namespace, number);
        // Short: a broker's socket is below it, and such a path has 107 bytes at most.
        let data = deployment.data.join("hosts").join(number.to_string());
        for directory in ["", "console", "log", "bin"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        for directory in [data.parent().unwrap(), &data] {
            fs::set_permissions(directory, Permissions::from_mode(0o711)).unwrap();
        }
        let engine = Engine::start(kind, &namespace);
        let settings = engine.agent_settings(&images());
        let (driver, section) = settings.split_once('\n').unwrap();
        let uid = deployment.uid_base + 25 * u32::from(number % 4);
        let (server, at) = (deployment.agents_address(), data.display());
        let config = format!(
            "{driver}\nnetwork = \"{network}\"\ncontrol_plane = \"https://{server}\"\n\
             join_token_file = \"{at}/join.token\"\nstate_dir = \"{at}/agent\"\nbridge = \"bmi0\"\n\
             loaders = \"/usr/lib/ipxe\"\nagent_uid = {uid}\nuid_base = {uid}\n\
             [broker]\nnetwork_namespace = \"/run/netns/{}\"\n{section}",
            Management::here(),
        );
        fs::write(data.join("agent.toml"), config).unwrap();
        let (program, address) = (deployment.program("bmi-agent"), format!("10.99.0.{number}"));
        Self { namespace, engine, data, address, number, program, agent: None }
    }

    /// Puts its uplink into a switch, where its nodes are.
    pub fn plug(&self, switch: &Switch) {
        switch.plug(&self.namespace, self.number);
        let path = self.data.join("agent.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("uplink = \"uplink\"\n{config}")).unwrap();
    }

    /// Puts a join token where the agent looks for it.
    pub fn token_give(&self, token: &str) {
        let path = self.data.join("join.token");
        fs::write(&path, format!("{token}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, verb: &[&str]) -> Command {
        let mut words = command(Path::new("/usr/bin/env"));
        words.args(["ip", "netns", "exec", &self.namespace]).arg(&self.program).arg("--config");
        words.arg(self.data.join("agent.toml")).args(verb);
        words
    }

    /// Ends the agent and starts it again; what it runs goes on.
    pub fn agent_restart(&mut self) {
        assert!(end(self.agent.as_mut().unwrap()), "the agent did not end on SIGTERM");
        self.agent_start();
    }

    /// Gives the agent other images of a directory; it reads that when it starts again.
    pub fn images_use(&self, images: &Path) {
        let path = self.data.join("agent.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (before, _) = text.split_once("[container]").unwrap();
        let settings = self.engine.agent_settings(images);
        let (_, section) = settings.split_once('\n').unwrap();
        fs::write(path, format!("{before}{section}")).unwrap();
    }

    /// What `bmi-agent renew` says, which must succeed.
    pub fn renew(&self, more: &[&str]) -> String {
        let done = self.command(&[&["renew"][..], more].concat()).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(done.status.success(), "{said}");
        said
    }

    /// What `bmi-agent check` says of it, which must be nothing.
    pub fn check(&self) {
        let checked = self.command(&["check"]).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{said}");
    }

    /// Starts the agent, and does not wait.
    pub fn agent_start(&mut self) {
        let log = File::options().create(true).append(true).open(self.data.join("log/agent.log")).unwrap();
        let mut agent = self.command(&[]);
        agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(agent.spawn().unwrap());
    }

    /// Waits until its boot services listen, by what the control plane hears.
    pub fn listens(&self, deployment: &Deployment, network: &str) {
        until("the agent's boot services listen", START, || {
            let network = deployment.api.get(&format!("/v1/networks/{network}")).expect(200);
            (network["agent"]["netboot"] == "listening").then_some(())
        });
    }

    /// What the agent has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.join("log/agent.log")).unwrap_or_default()
    }

    /// Takes the cable out that leads to the management network, or puts it in again.
    pub fn cut_off(&self, cut: bool) {
        let state = if cut { "down" } else { "up" };
        run("ip", &["-n", &self.namespace, "link", "set", "mgmt", state]);
    }

    /// The end of the whole host, as when its power fails: everything that it ran is gone at once, and so are its cables.
    pub fn power_off(&mut self, switch: &Switch) {
        switch.unplug(self.number);
        let below = format!("{}/", self.data.display());
        if let Some(mut agent) = self.agent.take() {
            for process in crate::host::processes() {
                if process.command.contains(&below) && process.command.contains("bmi-agent") {
                    output("kill", &["-9", &process.pid.to_string()]);
                }
            }
            agent.kill().ok();
            agent.wait().ok();
        }
        self.cut_off(true);
        self.engine.containers_kill();
        // Brokers are in another network, and go with the host all the same.
        for process in crate::host::processes() {
            if process.command.contains(&below)
                || process.command.contains("bmi-broker") && self.owns(&process)
            {
                output("kill", &["-9", &process.pid.to_string()]);
            }
        }
    }

    fn owns(&self, process: &crate::host::Process) -> bool {
        let config = fs::read_to_string(self.data.join("agent.toml")).unwrap_or_default();
        let base = config.lines().find_map(|line| line.strip_prefix("uid_base = ")?.parse::<u32>().ok());
        base.is_some_and(|base| (base..base + 25).contains(&process.uid))
    }
}

impl Drop for AgentHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            eprintln!(
                "--- agent of {}\n{}",
                self.namespace,
                lines[lines.len().saturating_sub(25)..].join("\n")
            );
        }
        if let Some(mut agent) = self.agent.take() {
            end(&mut agent);
        }
        let stopped = self.command(&["stop"]).output().unwrap();
        if !stopped.status.success() {
            eprintln!("bmi-agent stop: {}", String::from_utf8_lossy(&stopped.stderr));
        }
        let _ = output("ip", &["netns", "del", &self.namespace]);
    }
}
