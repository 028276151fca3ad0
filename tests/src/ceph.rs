//! A real Ceph of a test program's own: `infra/ceph` in a directory of the harness, and Ceph's own commands with the
//! administrator's key.
//!
//! Invariant: it ends with the process that started it, however that ends, and then its directory is gone. (Should
//! whoever sees to that be killed too, the next test program's sweep does.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::deployment::ROOT;
use crate::host::{repository, run, until};
use crate::management::{ADDRESS, Management};

/// How long a command of Ceph's may take, in seconds: it waits for ever for an OSD that is gone.
const COMMAND: &str = "120";
/// How long a process that was killed may still be seen.
const GONE: Duration = Duration::from_secs(10);
/// How long monitors may take to say that a pool is full, or no longer.
const TOLD: Duration = Duration::from_secs(60);
/// Ends the cluster once nobody has the other end of its standard input.
const KEEPER: &str = r#"read -r _; "$1" stop "$2/ceph" >/dev/null; rm -rf "$2""#;

/// Clusters made by this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running cluster: one monitor, one manager, and OSDs.
#[derive(Debug)]
pub struct Ceph {
    directory: PathBuf,
    keeper: Child,
}

/// A cephx user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its key.
    pub key: String,
    /// What it may do at OSDs.
    pub osd: String,
}

/// A pool that is full while this lives: others use it.
#[derive(Debug)]
pub struct Full<'a>(&'a Ceph);

impl Full<'_> {
    /// Gives room again, and waits until everybody knows.
    pub fn end(self) {
        self.0.pool_quota("0", false);
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        self.0.ceph(&["osd", "pool", "set-quota", self.0.pool(), "max_bytes", "0"]);
    }
}

/// What every verb of `infra/ceph` is asked of.
fn script() -> PathBuf {
    repository().join("infra/ceph")
}

/// Ends a cluster that a killed test run left.
pub(crate) fn ceph_sweep(data: &Path) {
    let directory = data.join("ceph");
    if directory.join("ceph.conf").exists() {
        crate::host::output(script(), &["stop", directory.to_str().unwrap_or_default()]);
    }
}

impl Ceph {
    /// The cluster of this test program, with one OSD, started when it is first asked for.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Ceph> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a cluster with one OSD.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(1)
    }

    /// Starts a cluster.
    #[must_use]
    pub fn start_with(osds: u32) -> Self {
        Self::start_as(&["--osds", &osds.to_string()])
    }

    /// Starts a cluster with two OSDs, of which the second has nothing but what is put there (`on_second`).
    #[must_use]
    pub fn start_apart() -> Self {
        let ceph = Self::start_with(2);
        for words in [
            &["balancer", "off"][..],
            &["osd", "set-require-min-compat-client", "luminous"],
            // The least there is beside a weight that is next to everything.
            &["osd", "crush", "reweight", "osd.0", "1000"],
            &["osd", "crush", "reweight", "osd.1", "0.00002"],
        ] {
            ceph.ceph(words);
        }
        ceph
    }

    /// An object's placement group, and the OSD that serves it.
    fn placed(&self, namespace: &str, object: &str) -> (String, u64) {
        let map = self.ceph(&["osd", "map", self.pool(), object, namespace, "-f", "json"]);
        let map: Value = serde_json::from_str(&map).unwrap();
        (map["pgid"].as_str().unwrap().to_owned(), map["acting_primary"].as_u64().unwrap())
    }

    /// Puts an object on the second OSD and waits until that serves it, if it is alone there of all in some namespaces: it takes
    /// along what is in its placement group. Gives whether it is.
    #[must_use]
    pub fn on_second(&self, namespace: &str, object: &str, namespaces: &[&str]) -> bool {
        let (group, _) = self.placed(namespace, object);
        let alone = namespaces.iter().all(|&space| {
            let objects = self.rados(&["-p", self.pool(), "--namespace", space, "ls"]);
            let apart = |other: &str| {
                let (of_other, osd) = self.placed(space, other);
                of_other != group && osd == 0
            };
            objects.lines().all(|other| other == object || apart(other))
        });
        if !alone {
            return false;
        }
        self.ceph(&["osd", "pg-upmap-items", &group, "0", "1"]);
        until("the second OSD says that it serves it", TOLD, || {
            let all: Value =
                serde_json::from_str(&self.ceph(&["pg", "ls-by-primary", "1", "-f", "json"])).unwrap();
            let is = |one: &Value| one["pgid"] == *group && one["state"] == "active+clean";
            // There is no list when there is none.
            all["pg_stats"].as_array().is_some_and(|all| all.iter().any(is)).then_some(())
        });
        true
    }

    /// Starts a cluster with one OSD that other hosts of the management network reach.
    #[must_use]
    pub fn start_on(_management: &Management) -> Self {
        Self::start_as(&["--address", ADDRESS])
    }

    fn start_as(options: &[&str]) -> Self {
        crate::sweep::sweep(Path::new(ROOT));
        let name = format!("{}-ceph{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let data = Path::new(ROOT).join(name);
        let directory = data.join("ceph");
        fs::create_dir_all(&data).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(script()).arg(&data);
        let keeper = keeper.stdin(Stdio::piped()).process_group(0).spawn().unwrap();
        let ceph = Self { directory, keeper };
        ceph.script(&["start"], options);
        ceph
    }

    /// Its directory, as `infra/ceph` knows it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration file of its clients.
    #[must_use]
    pub fn conf(&self) -> PathBuf {
        self.directory.join("ceph.conf")
    }

    /// Where the monitor is, as `mon_host` has it.
    #[must_use]
    pub fn mon_host(&self) -> String {
        let conf = fs::read_to_string(self.conf()).unwrap();
        conf.lines().find_map(|line| line.strip_prefix("mon host = ")).unwrap().to_owned()
    }

    /// The pool for images.
    #[must_use]
    pub const fn pool(&self) -> &'static str {
        "bmi"
    }

    /// The keyring of `client.admin`.
    #[must_use]
    pub fn admin_keyring(&self) -> PathBuf {
        self.directory.join("ceph.client.admin.keyring")
    }

    /// The keyring of a user with the rights of a control plane.
    #[must_use]
    pub fn control_plane_keyring(&self, user: &str) -> PathBuf {
        PathBuf::from(self.script(&["user"], &[user]).trim())
    }

    /// `rbd …` as the administrator; gives what it printed.
    pub fn rbd(&self, arguments: &[&str]) -> String {
        self.command("rbd", arguments)
    }

    /// `ceph …` as the administrator; gives what it printed.
    pub fn ceph(&self, arguments: &[&str]) -> String {
        self.command("ceph", arguments)
    }

    /// `rados …` as the administrator; gives what it printed.
    pub fn rados(&self, arguments: &[&str]) -> String {
        self.command("rados", arguments)
    }

    /// Every cephx user with its rights at the OSDs and its key, of those whose names begin so (without `client.`).
    #[must_use]
    pub fn users(&self, beginning: &str) -> BTreeMap<String, User> {
        let all: Value = serde_json::from_str(&self.ceph(&["auth", "ls", "-f", "json"])).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = all["auth_dump"].as_array().unwrap().clone().into_iter().filter_map(|user| {
            let name = user["entity"].as_str()?.strip_prefix("client.")?.to_owned();
            let found = User { key: text(&user["key"]), osd: text(&user["caps"]["osd"]) };
            name.starts_with(beginning).then_some((name, found))
        });
        all.collect()
    }

    /// Everything in a namespace: the names of its images, and of those in its trash.
    #[must_use]
    pub fn images(&self, namespace: &str) -> BTreeSet<String> {
        let space = format!("{}/{namespace}", self.pool());
        let named = |arguments: &[&str]| -> Vec<Value> {
            serde_json::from_str(&self.rbd(&[arguments, &[&space, "--format", "json"]].concat())).unwrap()
        };
        let images = named(&["ls"]).into_iter().map(|name| name.as_str().unwrap().to_owned());
        let trash = named(&["trash", "ls", "--all"]);
        let trash = trash.into_iter().map(|entry| format!("trash: {}", entry["name"].as_str().unwrap()));
        images.chain(trash).collect()
    }

    /// Gives the pool to whichever database claims it next, as an operator does whose database is gone. One Ceph of a test
    /// program serves its deployments one after the other.
    pub fn give_away(&self) {
        if self.rados(&["-p", self.pool(), "ls"]).lines().any(|object| object == "bmi_owner") {
            self.rados(&["-p", self.pool(), "rm", "bmi_owner"]);
        }
    }

    /// The names of the pool's namespaces.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        let listed = self.rbd(&["namespace", "ls", self.pool(), "--format", "json"]);
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        listed.into_iter().map(|space| space["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Makes the pool full, whatever is in it.
    #[must_use]
    pub fn fill(&self) -> Full<'_> {
        let full = Full(self);
        self.pool_quota("4096", true);
        full
    }

    /// Tells the pool how much it may hold, and waits until it says whether that is too much.
    fn pool_quota(&self, bytes: &str, full: bool) {
        self.ceph(&["osd", "pool", "set-quota", self.pool(), "max_bytes", bytes]);
        until("the monitors have told it", TOLD, || {
            let pools: Value = serde_json::from_str(&self.ceph(&["osd", "dump", "-f", "json"])).unwrap();
            let pool =
                pools["pools"].as_array().unwrap().iter().find(|pool| pool["pool_name"] == self.pool());
            (pool.unwrap()["flags_names"].as_str().unwrap().contains("full") == full).then_some(())
        });
    }

    /// Kills an OSD as a crash would.
    pub fn osd_kill(&self, number: u32) {
        let pid = self.signal(&format!("osd.{number}"), Signal::KILL);
        until("the OSD is gone", GONE, || ended(pid).then_some(()));
    }

    /// Starts an OSD again that was killed, and waits until it serves.
    pub fn osd_start(&self, number: u32) {
        self.script(&["osd-start"], &[&number.to_string()]);
    }

    /// Adds an OSD; gives its number.
    pub fn osd_add(&self) -> u32 {
        let numbers: Vec<u32> = serde_json::from_str(&self.ceph(&["osd", "ls", "-f", "json"])).unwrap();
        let number = numbers.iter().max().map_or(0, |most| most + 1);
        self.osd_start(number);
        number
    }

    /// Stops an OSD from running, and leaves it everything that it has.
    pub fn osd_pause(&self, number: u32) {
        self.signal(&format!("osd.{number}"), Signal::STOP);
    }

    /// Lets a paused OSD go on.
    pub fn osd_resume(&self, number: u32) {
        self.signal(&format!("osd.{number}"), Signal::CONT);
    }

    /// Stops the monitor from running.
    pub fn mon_pause(&self) {
        self.signal("mon.a", Signal::STOP);
    }

    /// Lets the paused monitor go on.
    pub fn mon_resume(&self) {
        self.signal("mon.a", Signal::CONT);
    }

    fn signal(&self, daemon: &str, signal: Signal) -> Pid {
        let file = fs::read_to_string(self.directory.join(format!("run/{daemon}.pid"))).unwrap();
        let pid = file.split(' ').next().unwrap().parse().ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{daemon} (process {pid:?}): {error}"));
        pid
    }

    fn script(&self, verb: &[&str], rest: &[&str]) -> String {
        let arguments = [verb, &[self.directory.to_str().unwrap()], rest].concat();
        run(script(), &arguments)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> String {
        let environment = format!("CEPH_CONF={}", self.conf().display());
        let fixed = ["-u", "CEPH_ARGS", environment.as_str(), "timeout", COMMAND, program];
        run("env", &[&fixed, arguments].concat())
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// Whether a process runs no longer; nobody may have fetched its status yet.
fn ended(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}
