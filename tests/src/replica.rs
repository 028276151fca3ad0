//! Processes of the control plane: the deployment's own, and replicas beside it on the same database.
//!
//! A replica shares the database, the keys, the local admin's token and the store; its data directory and its address
//! are its own. Nobody's agent connects to it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::api::Api;
use crate::deployment::Deployment;
use crate::host::{command, end, until};

/// How long a server may take to start: it makes a file system first.
const START: Duration = Duration::from_secs(60);

/// Starts a server. The first line that it prints goes to a file.
pub(crate) fn serve(program: &Path, config: &Path, out: &Path, log: File) -> Child {
    let child = command(program)
        .arg("--config")
        .arg(config)
        .env("NO_COLOR", "1")
        .stdout(File::create(out).unwrap())
        .stderr(log)
        .spawn();
    child.unwrap()
}

/// Waits until a server listens, and gives where.
pub(crate) fn listening(child: &mut Child, out: &Path) -> SocketAddr {
    until("the control plane listens", START, || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the control plane ended: {ended:?}");
        let said: serde_json::Value =
            serde_json::from_str(fs::read_to_string(out).ok()?.lines().next()?).ok()?;
        said["address"].as_str()?.parse().ok()
    })
}

/// Another control plane on a deployment's database.
#[derive(Debug)]
pub struct Replica {
    /// The API, as the local admin.
    pub api: Api,
    /// Its configuration file.
    pub config: PathBuf,
    program: PathBuf,
    out: PathBuf,
    log: PathBuf,
    token_file: PathBuf,
    child: Option<Child>,
}

impl Deployment {
    /// Configures a replica, and does not start it.
    #[must_use]
    pub fn replica(&self, name: &str) -> Replica {
        let (data, keys) = (self.data.display(), self.data.join("control-plane"));
        let keys = keys.display();
        let text = fs::read_to_string(self.config()).unwrap();
        let lines = text.lines().map(|line| match line {
            _ if line.starts_with("listen = ") => "listen = \"127.0.0.1:0\"".to_owned(),
            _ if line.starts_with("data_dir = ") => format!(
                "data_dir = \"{data}/{name}\"\nmaster_key_file = \"{keys}/master.key\"\n\
                 admin_token_file = \"{keys}/admin.token\""
            ),
            "[store]" => format!(
                "[audit]\nkey_file = \"{keys}/audit.key\"\n[store]\ndirectory = \"{}\"",
                self.store().display()
            ),
            line => line.to_owned(),
        });
        let config = self.data.join(format!("{name}.toml"));
        fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
        Replica {
            api: self.api.clone(),
            config,
            program: self.program("bmi-control-plane"),
            out: self.data.join(format!("{name}.out")),
            log: self.data.join(format!("log/{name}.log")),
            token_file: self.token_file(),
            child: None,
        }
    }
}

impl Replica {
    /// Starts it, also again.
    pub fn start(&mut self) {
        self.begin();
        self.listening();
    }

    /// Starts it and does not wait.
    pub fn begin(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.child = Some(serve(&self.program, &self.config, &self.out, log));
    }

    /// Waits until it listens.
    pub fn listening(&mut self) {
        let address = listening(self.child.as_mut().unwrap(), &self.out);
        self.api = Api::new(address, fs::read_to_string(&self.token_file).unwrap().trim());
    }

    /// Where agents dial it.
    #[must_use]
    pub fn agents_address(&self) -> SocketAddr {
        crate::enrolment::agents_address(&self.out)
    }

    /// Ends it.
    pub fn stop(&mut self) {
        assert!(end(&mut self.child.take().unwrap()), "the replica did not end on SIGTERM");
    }

    /// Ends it as a crash would: SIGKILL. Gives the number that its process had.
    pub fn kill(&mut self) -> u32 {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        child.id()
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether it still runs.
    pub fn assert_alive(&mut self) {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the replica ended: {ended:?}");
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A command of the program, with its configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            let last = lines[lines.len().saturating_sub(25)..].join("\n");
            eprintln!("--- {}, its last lines\n{last}", self.config.display());
        }
        let ended = self.child.take().is_none_or(|mut child| end(&mut child));
        assert!(ended || std::thread::panicking(), "the replica did not end on SIGTERM");
    }
}
