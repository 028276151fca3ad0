//! The `bmi` command, as a person runs it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The command with the environment of one user.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Fails unless the command succeeded.
    pub fn ok(&self) -> &Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Cli {
    pub(crate) fn new(program: PathBuf, server: SocketAddr, token_file: PathBuf, project: &str) -> Self {
        let environment = vec![
            ("BMI_SERVER", format!("http://{server}")),
            ("BMI_TOKEN_FILE", token_file.display().to_string()),
            ("BMI_PROJECT", project.to_owned()),
        ];
        Self { program, environment }
    }

    /// The same with another value of an environment variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl AsRef<Path>) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.as_ref().display().to_string()));
        self
    }

    /// The same without a token file, with sessions kept below a directory.
    #[must_use]
    pub fn of_session(mut self, state: &Path) -> Self {
        self.environment.retain(|(known, _)| *known != "BMI_TOKEN_FILE");
        self.with("XDG_STATE_HOME", state)
    }

    /// The command, to be started by the test.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for name in ["BMI_SERVER", "BMI_TOKEN_FILE", "BMI_PROJECT", "BMI_CA_FILE", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned()).args(arguments).stdin(std::process::Stdio::null());
        command
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
