//! A deployment of one test: its own data directory, network namespace, control plane and agent.
//!
//! Invariants: nothing of it is seen by another test; every process that ends it is one it started; what cannot be
//! taken down fails the test.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::geteuid;

use crate::api::Api;
use crate::ceph::Ceph;
use crate::cli::Cli;
use crate::dnsmasq::{Dnsmasq, UPLINK};
use crate::engine::{Engine, Kind, images};
use crate::host::{command, end, mounts_below, namespace_make, output, repository, run, until};
use crate::postgres::Postgres;
use crate::replica::{listening, serve};
use crate::stores::Store;

/// Where deployments are: not below /tmp, since targets run as other users and need to get there.
pub(crate) const ROOT: &str = "/var/lib/bmi-tests";
/// How long a server may take to start: it makes a file system first.
pub(crate) const START: Duration = Duration::from_secs(60);
/// A store for small images. XFS takes no less than 300 MiB.
pub const STORE_SMALL: &str = "400M";
/// A store for the golden Debian image and what nodes write.
pub const STORE_LARGE: &str = "3G";
/// User ids of one deployment.
pub(crate) const UIDS: u32 = 100;
/// The programs of a deployment.
const PROGRAMS: [&str; 6] =
    ["bmi", "bmi-control-plane", "bmi-agent", "bmi-target", "bmi-netboot", "bmi-broker"];

/// Says `postgres` when every deployment is to have its database there, and not in SQLite.
const DATABASE: &str = "BMI_TEST_DATABASE";

/// Tests ask more than callers do: what is refused for being too much is the matter of one test alone.
const UNLIMITED: &str = "[rate_limit]\ncaller_per_second = 10000000\ncaller_burst = 10000000\n\
                         agent_per_second = 10000000\nagent_burst = 10000000\n\
                         address_per_second = 10000000\naddress_burst = 10000000\n\
                         denied_per_minute = 10000000\ndenied_burst = 10000000\n";

/// Deployments made by this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running deployment.
#[derive(Debug)]
pub struct Deployment {
    /// Its data directory.
    pub data: PathBuf,
    /// Its network namespace.
    pub namespace: String,
    /// The API, as the local admin.
    pub api: Api,
    /// First user id of its processes; it uses at most 100.
    pub uid_base: u32,
    /// The URL of its database in PostgreSQL; none when it is SQLite's.
    pub database: Option<String>,
    /// The user that it has in Ceph, without `client.`; none when its store is local.
    pub ceph_user: Option<String>,
    control_plane: Option<Child>,
    agent: Option<Child>,
    engine: Option<Engine>,
}

/// A directory of built programs.
fn built() -> PathBuf {
    let configured = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    // A relative one is meant from where cargo was started: the workspace.
    let target = repository().join(configured);
    let built = target.join(std::env::var("BMI_PROFILE").unwrap_or_else(|_| "debug".to_owned()));
    for program in PROGRAMS {
        let path = built.join(program);
        assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    }
    built
}

impl Deployment {
    /// A built program, for what needs no deployment.
    #[must_use]
    pub fn built(program: &str) -> PathBuf {
        built().join(program)
    }

    /// Starts a control plane with an empty store of a size, on the database that the environment asks for.
    #[must_use]
    pub fn start(store: &str) -> Self {
        let postgres = std::env::var(DATABASE).is_ok_and(|kind| kind == "postgres");
        Self::start_on(store, postgres.then(|| Postgres::shared().database()))
    }

    /// Starts a control plane on a database in PostgreSQL, or on SQLite.
    #[must_use]
    pub fn start_on(store: &str, database: Option<String>) -> Self {
        Self::start_with(&Store::Local(store), database)
    }

    /// Starts a control plane whose store is a Ceph, on SQLite.
    #[must_use]
    pub fn start_in_ceph(ceph: &Ceph) -> Self {
        Self::start_with(&Store::Ceph(ceph), None)
    }

    /// The same with a database.
    #[must_use]
    pub fn start_in_ceph_on(ceph: &Ceph, database: String) -> Self {
        Self::start_with(&Store::Ceph(ceph), Some(database))
    }

    /// Starts a control plane with a store of a size, on SQLite, of the programs of a directory: of the release before.
    #[must_use]
    pub fn start_of(programs: &Path, store: &str) -> Self {
        Self::start_of_with(programs, &Store::Local(store), None)
    }

    fn start_with(store: &Store<'_>, database: Option<String>) -> Self {
        Self::start_of_with(&built(), store, database)
    }

    fn start_of_with(built: &Path, store: &Store<'_>, database: Option<String>) -> Self {
        assert!(
            geteuid().is_root(),
            "system tests need root: they make network namespaces and mount file systems"
        );
        crate::sweep::sweep(Path::new(ROOT));
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("{pid}-{count}");
        let data = Path::new(ROOT).join(&name);
        let namespace = format!("bmi-test-{name}");
        let uid_base = 400_000 + (pid % 100_000) * 10 * UIDS + (count % 10) * UIDS;
        for directory in ["", "bin", "images", "log", "console"] {
            let directory = data.join(directory);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(0o711)).unwrap();
        }
        // Under other names, so that targets reach them and a build meanwhile changes nothing.
        for program in PROGRAMS {
            let copied = fs::hard_link(built.join(program), data.join("bin").join(program));
            copied
                .or_else(|_| fs::copy(built.join(program), data.join("bin").join(program)).map(|_| ()))
                .unwrap();
        }
        fs::write(data.join("images/small.raw"), crate::setup::small_image()).unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let api = Api::new(address, "");
        let (control_plane, agent, engine, ceph_user) = (None, None, None, None);
        let mut deployment =
            Self { data, namespace, api, uid_base, database, ceph_user, control_plane, agent, engine };
        namespace_make(&deployment.namespace);
        deployment.configurations_write(store);
        if let Store::Ceph(ceph) = store {
            ceph.give_away();
        }
        deployment.control_plane_start();
        deployment
    }

    fn configurations_write(&mut self, store: &Store<'_>) {
        let (data, uid) = (self.data.display(), self.uid_base);
        let database =
            self.database.as_ref().map(|url| format!("database = \"{url}\"\n")).unwrap_or_default();
        let (section, ceph_user) = store.control_plane();
        let control_plane = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"{data}/control-plane\"\nimport_dir = \"{data}/images\"\n\
             {database}{UNLIMITED}[agent]\nnetwork = \"provisioning\"\nuid = {uid}\n{section}"
        );
        fs::write(self.config(), control_plane).unwrap();
        let (volumes, section) = store.agent(&self.data);
        let agent = format!(
            "network = \"provisioning\"\ncontrol_plane = \"unix:{data}/control-plane/agent.sock\"\n\
             state_dir = \"{data}/agent\"\n{volumes}bridge = \"bmi0\"\n\
             loaders = \"/usr/lib/ipxe\"\nagent_uid = {uid}\nuid_base = {uid}\n{section}"
        );
        fs::write(self.agent_config(), agent).unwrap();
        self.ceph_user = ceph_user;
    }

    /// Takes the limits off again that the tests have, for those that are configured.
    pub fn rate_limit_configure(&mut self, settings: &str) {
        let path = self.data.join("control-plane.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(UNLIMITED));
        fs::write(path, text.replace(UNLIMITED, "")).unwrap();
        self.control_plane_configure(settings);
    }

    /// Starts the control plane, also again after [`Self::control_plane_stop`].
    pub fn control_plane_start(&mut self) {
        let out = self.data.join("control-plane.out");
        let (program, log) = (self.program("bmi-control-plane"), self.log("control-plane"));
        let child = self.control_plane.insert(serve(&program, &self.config(), &out, log));
        let address = listening(child, &out);
        // There is none where the local admin is switched off.
        let token = fs::read_to_string(self.data.join("control-plane/admin.token")).unwrap_or_default();
        self.api = Api::new(address, token.trim());
    }

    /// Ends the control plane.
    pub fn control_plane_stop(&mut self) {
        let mut child = self.control_plane.take().unwrap();
        assert!(end(&mut child), "the control plane did not end on SIGTERM");
    }

    /// Ends the control plane and starts it again at the same address.
    pub fn control_plane_restart_at_its_address(&mut self) {
        let config = self.config();
        let listen = format!("listen = \"{}\"", self.api.address());
        let text = fs::read_to_string(&config).unwrap().replace("listen = \"127.0.0.1:0\"", &listen);
        fs::write(&config, text).unwrap();
        self.control_plane_stop();
        self.control_plane_start();
    }

    /// Waits until the control plane ends by itself, and gives its exit status.
    pub fn control_plane_ends(&mut self) -> Option<i32> {
        let mut child = self.control_plane.take().unwrap();
        until("the control plane ends", START, || child.try_wait().unwrap()).code()
    }

    /// The number of the control plane's process.
    #[must_use]
    pub fn control_plane_pid(&self) -> u32 {
        self.control_plane.as_ref().unwrap().id()
    }

    /// Ends the control plane as a crash would: SIGKILL.
    pub fn control_plane_kill(&mut self) {
        let mut child = self.control_plane.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until the control plane has ended by itself; gives its exit status.
    pub fn control_plane_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.control_plane.take().unwrap();
        until("the control plane ends", Duration::from_secs(60), || child.try_wait().unwrap())
    }

    /// Makes the network `provisioning`, starts its agent in the namespace, and waits until its boot services listen.
    pub fn agent_start(&mut self) {
        self.api.network("provisioning", "10.77.0.0/24");
        self.agent_start_on("provisioning");
    }

    /// Makes the network `provisioning` beside another DHCP server, which is to be behind the uplink, and starts its agent.
    pub fn agent_start_beside(&mut self, dhcp: &str, start: impl FnOnce(&Self) -> Dnsmasq) -> Dnsmasq {
        let network = serde_json::json!({
            "name": "provisioning", "cidr": "10.77.0.0/24", "dhcp": dhcp, "node_range": "10.77.0.80-10.77.0.120",
        });
        self.api.post("/v1/networks", &network).expect(201);
        let path = self.agent_config();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}uplink = \"{UPLINK}\"\n")).unwrap();
        let server = start(self);
        self.agent_start_on("provisioning");
        server
    }

    /// Adds settings to the control plane's configuration and starts it again.
    pub fn control_plane_configure(&mut self, settings: &str) {
        self.control_plane_stop();
        let path = self.config();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{settings}\n")).unwrap();
        self.control_plane_start();
    }

    /// A command of the control plane's program, with its configuration.
    #[must_use]
    pub fn control_plane_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program("bmi-control-plane"));
        command.arg("--config").arg(self.config()).args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Configures identity providers: the control plane stays where it is, and browsers reach it there.
    pub fn sign_in_configure(&mut self, settings: &str) {
        self.sign_in_configure_by("http", settings);
    }

    /// The same where browsers reach it by another scheme.
    pub fn sign_in_configure_by(&mut self, scheme: &str, settings: &str) {
        let address = self.api.address();
        self.control_plane_stop();
        let path = self.config();
        let text = fs::read_to_string(&path).unwrap();
        let listen = format!("listen = \"{address}\"\npublic_url = \"{scheme}://{address}\"");
        let text = text.replace("listen = \"127.0.0.1:0\"", &listen);
        fs::write(path, format!("{text}{settings}\n")).unwrap();
        self.control_plane_start();
    }

    /// What the control plane has logged.
    #[must_use]
    pub fn control_plane_log(&self) -> String {
        fs::read_to_string(self.data.join("log/control-plane.log")).unwrap()
    }

    /// Starts the agent of a network that is there, and waits until its boot services listen.
    pub fn agent_start_on(&mut self, network: &str) {
        self.agent_begin(&[]);
        self.agent_listens(network);
    }

    /// Starts an engine of a kind, and has the agent run its targets there, whatever the environment asks for. Before the agent.
    pub fn engine_use(&mut self, kind: Kind) {
        let engine = self.engine.insert(Engine::start(kind, &self.namespace));
        let settings = engine.agent_settings(&images());
        let path = self.agent_config();
        // A key that belongs to no section comes first.
        let (driver, section) = settings.split_once('\n').unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{driver}\n{text}{section}\n")).unwrap();
    }

    /// Has the agent use a driver that is no engine's, whatever the environment asks for. Before the agent.
    pub fn driver_use(&self, name: &str) {
        let path = self.agent_config();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("driver = \"{name}\"\n{text}")).unwrap();
    }

    /// Starts the agent with an environment, and does not wait.
    pub fn agent_begin(&mut self, environment: &[(&str, &str)]) {
        let said = fs::read_to_string(self.agent_config()).unwrap();
        let open = !said.lines().any(|line| line.starts_with("driver = "));
        if let (true, Some(kind)) = (open, Kind::asked_for()) {
            self.engine_use(kind);
        }
        let child = self
            .agent_command(&[])
            .envs(environment.iter().copied())
            .stdout(self.log("agent"))
            .stderr(self.log("agent"))
            .spawn();
        self.agent = Some(child.unwrap());
    }

    /// A command of the agent's program in its namespace, with its configuration.
    #[must_use]
    pub fn agent_command(&self, arguments: &[&str]) -> Command {
        let mut command = command(Path::new("/usr/bin/env"));
        command
            .args(["ip", "netns", "exec", &self.namespace])
            .arg(self.program("bmi-agent"))
            .arg("--config")
            .arg(self.agent_config())
            .args(arguments);
        command
    }

    /// What the agent has logged.
    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.data.join("log/agent.log")).unwrap_or_default()
    }

    /// Ends the agent alone: what it started stays.
    pub fn agent_end(&mut self) {
        assert!(end(&mut self.agent.take().unwrap()), "the agent did not end on SIGTERM");
    }

    /// Waits until the agent has ended by itself; gives its exit status.
    pub fn agent_ends(&mut self) -> Option<i32> {
        let mut child = self.agent.take().unwrap();
        until("the agent ends", START, || child.try_wait().unwrap()).code()
    }

    /// Waits until the boot services of a network listen, as its agent says.
    pub fn agent_listens(&self, network: &str) {
        until("the agent's boot services listen", START, || {
            let network = self.api.get(&format!("/v1/networks/{network}")).expect(200);
            (network["agent"]["netboot"] == "listening").then_some(())
        });
    }

    /// Ends both halves of the agent as a crash would: SIGKILL.
    pub fn agent_kill(&mut self) {
        let mut child = self.agent.take().unwrap();
        // The helper is a child of the agent; it is killed first, or it would end in good order.
        let config = self.agent_config().display().to_string();
        for helper in crate::host::processes() {
            if helper.command.contains(" helper ") && helper.command.contains(&config) {
                run("kill", &["-9", &helper.pid.to_string()]);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal to the agent's unprivileged half: `STOP` makes it stand still, `CONT` go on.
    pub fn agent_signal(&self, signal: &str) {
        let pid = self.agent.as_ref().unwrap().id().to_string();
        run("kill", &[&format!("-{signal}"), &pid]);
    }

    /// Whether the control plane and the agent, where started, still run.
    pub fn assert_alive(&mut self) {
        for (name, child) in [("control plane", &mut self.control_plane), ("agent", &mut self.agent)] {
            let ended = child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the {name} ended: {ended:?}");
        }
    }

    fn log(&self, name: &str) -> File {
        let path = self.data.join("log").join(format!("{name}.log"));
        File::options().create(true).append(true).open(path).unwrap()
    }

    /// The agent's configuration file.
    #[must_use]
    pub fn agent_config(&self) -> PathBuf {
        self.data.join("agent.toml")
    }

    /// Adds settings to the configuration of an agent that is not started yet.
    pub fn agent_configure(&self, settings: &str) {
        let path = self.agent_config();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{settings}")).unwrap();
    }

    /// The control plane's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.data.join("control-plane.toml")
    }

    /// A program of the deployment.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.data.join("bin").join(name)
    }

    /// The local admin's token.
    #[must_use]
    pub fn token(&self) -> String {
        fs::read_to_string(self.token_file()).unwrap().trim().to_owned()
    }

    /// The file with it.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.data.join("control-plane/admin.token")
    }

    /// The local store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("control-plane/store")
    }

    /// The CLI, as the local admin, for a project.
    #[must_use]
    pub fn cli(&self, project: &str) -> Cli {
        Cli::new(self.program("bmi"), self.api.address(), self.token_file(), project)
    }

    /// Runs a program in the network namespace, which must succeed.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.namespace, program];
        all.extend_from_slice(arguments);
        run("ip", &all)
    }

    /// Ends the agent and everything it started. Gives what went wrong.
    pub fn agent_stop(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.agent.take() {
            Some(mut agent) => {
                if !end(&mut agent) {
                    faults.push("the agent did not end on SIGTERM".to_owned());
                }
            }
            // One that ended by itself left what it had started.
            None if self.data.join("agent/run").exists() => {}
            None => return faults,
        }
        let program = self.program("bmi-agent");
        let config = self.agent_config();
        let arguments = ["netns", "exec", &self.namespace, program.to_str().unwrap(), "--config"];
        let stopped = output("ip", &[&arguments[..], &[config.to_str().unwrap(), "stop"]].concat());
        if !stopped.status.success() {
            faults.push(format!("bmi-agent stop: {}", String::from_utf8_lossy(&stopped.stderr)));
        }
        faults
    }

    fn take_down(&mut self) -> Vec<String> {
        let mut faults = self.agent_stop();
        self.engine = None;
        if self.control_plane.take().is_some_and(|mut server| !end(&mut server)) {
            faults.push("the control plane did not end on SIGTERM".to_owned());
        }
        let mut attempts = vec![output("ip", &["netns", "del", &self.namespace])];
        for mount in mounts_below(&self.data) {
            attempts.push(output("umount", &[&mount]));
        }
        for attempt in attempts.iter().filter(|attempt| !attempt.status.success()) {
            faults.push(String::from_utf8_lossy(&attempt.stderr).into_owned());
        }
        if mounts_below(&self.data).is_empty()
            && let Err(error) = fs::remove_dir_all(&self.data)
        {
            faults.push(format!("{}: {error}", self.data.display()));
        }
        faults
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["control-plane", "agent"] {
                let log = fs::read_to_string(self.data.join(format!("log/{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
                eprintln!(
                    "--- {name}, its last lines\n{}",
                    lines[lines.len().saturating_sub(25)..].join("\n")
                );
            }
        }
        let faults = self.take_down();
        if !faults.is_empty() {
            eprintln!("--- taking down {}: {faults:#?}", self.data.display());
            assert!(std::thread::panicking(), "the deployment could not be taken down: {faults:?}");
        }
    }
}
