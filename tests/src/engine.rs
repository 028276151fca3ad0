//! Container engines of a test's own: Docker and Podman, each with its own directories, inside a host that is a network
//! namespace. They end with the test.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::host::{self, until};

/// How long an engine may take to start.
const START: Duration = Duration::from_secs(60);

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker, as operations.md has it on an agent's host.
    Docker,
    /// Podman's service.
    Podman,
}

/// Says `docker` or `podman` when every agent is to run its targets in containers, and not as processes.
const ENGINE: &str = "BMI_TEST_ENGINE";
/// Is there when what is for both engines is to be done with that one.
const ONE_ENGINE: &str = "BMI_TEST_ONE_ENGINE";

impl Kind {
    /// The engine that the environment asks for.
    #[must_use]
    pub fn asked_for() -> Option<Self> {
        match std::env::var(ENGINE).ok()?.as_str() {
            "docker" => Some(Self::Docker),
            "podman" => Some(Self::Podman),
            other => panic!("{ENGINE} is docker or podman, not {other}"),
        }
    }

    /// The engines with which a test is done that is for both: in a sample, the one that the environment asks for.
    #[must_use]
    pub fn each() -> Vec<Self> {
        match (std::env::var_os(ONE_ENGINE), Self::asked_for()) {
            (Some(_), Some(one)) => vec![one],
            _ => vec![Self::Docker, Self::Podman],
        }
    }
}

/// The images that `infra/containers/build --profile dev` makes.
#[must_use]
pub fn images() -> PathBuf {
    host::repository().join("target/containers")
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    /// Which.
    pub kind: Kind,
    directory: tempfile::TempDir,
    namespace: String,
    process: Option<Child>,
}

impl Engine {
    /// Starts one in a network namespace that there is (`/run/netns/NAMESPACE`).
    #[must_use]
    pub fn start(kind: Kind, namespace: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut engine = Self { kind, directory, namespace: namespace.to_owned(), process: None };
        engine.again();
        engine
    }

    /// What an agent's configuration has, that is to use it with the images of a directory. It begins with no section and ends
    /// with one.
    #[must_use]
    pub fn agent_settings(&self, images: &Path) -> String {
        let digests = images.join("images.toml");
        assert!(digests.exists(), "build them first: infra/containers/build --profile dev");
        format!(
            "driver = \"container\"\n[container]\nengine = \"{}\"\nimage_dir = \"{}\"\n{}",
            self.socket().display(),
            images.display(),
            std::fs::read_to_string(digests).unwrap()
        )
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("engine.sock")
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn words(&self) -> Vec<String> {
        let socket = format!("unix://{}", self.socket().display());
        let words: Vec<String> = match self.kind {
            Kind::Docker => {
                let dirs = [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")];
                let dirs = dirs.into_iter().flat_map(|(flag, name)| [flag.to_owned(), self.path(name)]);
                let flags = [
                    "--host",
                    &socket,
                    "--live-restore",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                    "--bridge=none",
                    "--userland-proxy=false",
                ];
                ["dockerd".to_owned()].into_iter().chain(dirs).chain(flags.map(str::to_owned)).collect()
            }
            // As root and without systemd: cgroupfs; and runc, since crun refuses cgroups of both versions together.
            Kind::Podman => ["podman", "--root", &self.path("data"), "--runroot", &self.path("run")]
                .into_iter()
                .chain(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"])
                .chain(["system", "service", "--time", "0", &socket])
                .map(str::to_owned)
                .collect(),
        };
        words
    }

    /// Starts it again after [`Self::stop`].
    pub fn again(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "nsenter"])
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(self.words())
            // conmon makes a file `oom` where it runs when a container was ended for want of memory.
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let what = format!("{:?} answers; its log: {}", self.kind, self.log().display());
        until(&what, START, || {
            UnixStream::connect(self.socket()).ok()?;
            self.ask_try("GET", "/version", None).ok()
        });
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Ends it; containers run on.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            host::end(&mut process);
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Has it take what it is asked and answer nothing, or go on.
    pub fn hang(&self, hangs: bool) {
        let signal = if hangs { Signal::STOP } else { Signal::CONT };
        let process = self.process.as_ref().and_then(|process| Pid::from_raw(process.id().cast_signed()));
        kill_process(process.unwrap(), signal).unwrap();
    }

    /// Ends every container and the engine at once, as when the host's power fails.
    pub fn containers_kill(&mut self) {
        for container in self.containers() {
            let id = container["Id"].as_str().unwrap_or_default().to_owned();
            let _ = self.ask_try("POST", &format!("/containers/{id}/kill"), None);
        }
        self.stop();
    }

    fn ask_try(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]);
        curl.arg(self.socket()).arg(format!("http://engine/v1.41{path}"));
        if let Some(body) = body {
            curl.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        let output = curl.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        let said = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
        if status.starts_with('2') { Ok(said) } else { Err(format!("{method} {path}: {status} {body}")) }
    }

    /// Asks its API; what it refuses fails the test.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ask_try(method, path, body).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every container there is, also ended ones.
    #[must_use]
    pub fn containers(&self) -> Vec<Value> {
        self.ask("GET", "/containers/json?all=true", None).as_array().cloned().unwrap_or_default()
    }

    /// A container as the engine has it.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        self.ask("GET", &format!("/containers/{name}/json"), None)
    }

    /// What it keeps of what containers printed, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        let find = ["-name", "*-json.log*", "-o", "-name", "ctr.log*"];
        let words = [
            &[self.directory.path().to_str().unwrap(), "-type", "f", "("],
            &find[..],
            &[")", "-printf", "%s\n"],
        ];
        let found = host::output("find", &words.concat());
        String::from_utf8_lossy(&found.stdout).lines().filter_map(|line| line.parse::<u64>().ok()).sum()
    }

    /// Loads an image from a file.
    pub fn load(&self, tar: &Path) {
        let file = format!("@{}", tar.display());
        let socket = self.socket();
        let words = ["-sSf", "-X", "POST", "-H", "content-type: application/x-tar", "--data-binary", &file];
        let words =
            [&words[..], &["--unix-socket", socket.to_str().unwrap()], &["http://engine/v1.41/images/load"]];
        host::run("curl", &words.concat());
    }

    /// Runs a program *in* a container that runs, with everything that confines it, and gives what it returned and what it
    /// printed.
    #[must_use]
    pub fn inside(&self, container: &str, command: &[&str]) -> (i64, String) {
        let body = serde_json::json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
        let made = self.ask("POST", &format!("/containers/{container}/exec"), Some(&body));
        let id = made["Id"].as_str().unwrap();
        let start = serde_json::json!({ "Detach": false, "Tty": false });
        let said = self.ask("POST", &format!("/exec/{id}/start"), Some(&start));
        let code = until("the program has ended", START, || {
            let state = self.ask("GET", &format!("/exec/{id}/json"), None);
            (state["Running"] == false).then(|| state["ExitCode"].as_i64().unwrap())
        });
        (code, said.as_str().map_or_else(|| said.to_string(), str::to_owned))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            eprintln!("{:?}: {}", self.kind, log.get(from..).unwrap_or_default());
        }
        if self.process.is_some() {
            for container in self
                .ask_try("GET", "/containers/json?all=true", None)
                .iter()
                .filter_map(Value::as_array)
                .flatten()
            {
                let id = container["Id"].as_str().unwrap_or_default();
                let _ = self.ask_try("DELETE", &format!("/containers/{id}?force=true"), None);
            }
        }
        self.stop();
        for mount in host::mounts_below(self.directory.path()).iter().rev() {
            let _ = host::output("umount", &["--lazy", mount]);
        }
    }
}
