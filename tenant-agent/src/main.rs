//! `bmi-agent`: the tenant agent. It builds one provisioning network on its host and keeps it as the control plane
//! wants it: the bridge and its rules, the boot services, and a target for each instance.
//!
//! Two processes. This one is started as root, starts the root helper, and gives up every right before it talks to
//! anyone; the helper (see [`helper`]) acts on the host and talks to nobody. Targets and boot services outlive both: an
//! agent that starts again finds them and serves on, with or without the control plane. `bmi-agent stop` ends them.
//!
//! Deliberately absent: any socket that listens, any packet of a tenant.

mod agent;
mod check;
mod config;
mod drivers;
mod enrol;
mod events;
mod execute;
mod faults;
mod helper;
mod identity;
mod ledger;
mod link;
mod patience;
mod plan;
#[cfg(test)]
mod releases;
mod renew;
mod start;
mod sync;
mod trouble;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bmi_types::{AgentId, chain};
use clap::{Parser, Subcommand};

/// Exit codes: cannot work, and not understood or not supported.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Builds one provisioning network and keeps it as the control plane wants it.
#[derive(Debug, Parser)]
#[command(name = "bmi-agent", version)]
struct Arguments {
    /// Configuration, TOML.
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether this host can serve the network, all faults at once.
    Check,
    /// End every target and the boot services, and remove rules and bridge. The agent must not be running.
    Stop,
    /// After an upgrade: end what runs another program than the one that is installed, one at a time, and wait until the agent
    /// has started it again. A node's I/O stands still for that long (a second or so); what it was told is written stays
    /// written. The agent must be running.
    Renew {
        /// Also what runs the installed program.
        #[arg(long)]
        all: bool,
        /// Only say what would be renewed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Join the network with a join token, and keep who this agent is. Waits for the control plane, and for approval where
    /// that is needed. Exit status 1 when the token is refused.
    Enrol {
        /// The join token. Others on this host see it: prefer --token-file.
        #[arg(long, required_unless_present = "token_file", conflicts_with = "token_file")]
        token: Option<String>,
        /// A file with the join token; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// The control plane, https://HOST:PORT; as configured when not given.
        #[arg(long, value_name = "URL")]
        server: Option<String>,
        /// The id that this agent had before its key was lost. The new key must be approved.
        #[arg(long, value_name = "ID", conflicts_with = "new")]
        agent: Option<AgentId>,
        /// Forget who this agent was, and join as a new one.
        #[arg(long)]
        new: bool,
    },
    /// The root helper. Started by the agent itself.
    #[command(hide = true)]
    Helper,
    /// The launcher of one process. Started by the root helper.
    #[command(hide = true)]
    Launch {
        /// Where the process reaches a network: not given, nowhere but where it is put; `host`, where we are; or the path
        /// of a namespace.
        #[arg(long)]
        network: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Launch { network }) = arguments.command {
        return drivers::process::launcher::run(network.as_deref());
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("BMI_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    match arguments.command {
        None => report(start::agent(&arguments.config)),
        Some(Command::Helper) => report(start::helper(&arguments.config)),
        Some(Command::Stop) => report(start::stop(&arguments.config)),
        Some(Command::Renew { all, dry_run }) => report(renew::renew(&arguments.config, all, dry_run)),
        Some(Command::Check) => check(&arguments.config),
        Some(Command::Enrol { token, token_file, server, agent, new }) => {
            enrol(&arguments.config, (token, token_file), |token| start::Enrolling {
                token,
                server,
                agent,
                forget: new,
            })
        }
        Some(Command::Launch { .. }) => ExitCode::from(USAGE),
    }
}

/// Joins with a token, or with what a file holds.
fn enrol(
    config: &Path,
    (token, file): (Option<String>, Option<PathBuf>),
    told: impl FnOnce(String) -> start::Enrolling,
) -> ExitCode {
    let read = match (token, file) {
        (Some(token), _) => Ok(token),
        (None, Some(file)) if file == Path::new("-") => std::io::read_to_string(std::io::stdin()),
        (None, Some(file)) => std::fs::read_to_string(file),
        (None, None) => return ExitCode::from(USAGE),
    };
    match read {
        Ok(token) => report(start::enrol(config, told(token))),
        Err(error) => {
            tracing::error!("reading the join token: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn report(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::from(FAILED)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn check(path: &Path) -> ExitCode {
    let (faults, weaknesses) = match config::Config::load(path) {
        Ok(config) => (check::faults(&config), check::weaknesses(&config)),
        Err(error) => (vec![chain(&error)], Vec::new()),
    };
    for weakness in &weaknesses {
        println!("weaker than it could be: {weakness}");
    }
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("this host can serve the network");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    }
}
