//! `bmi-agent`: the tenant agent. It builds one provisioning network on its host and keeps it as the control plane
//! wants it: the bridge and its rules, the boot services, and a target for each instance.
//!
//! Two processes. This one is started as root, starts the root helper, and gives up every right before it talks to
//! anyone; the helper (see [`helper`]) acts on the host and talks to nobody. Targets and boot services outlive both: an
//! agent that starts again finds them and serves on, with or without the control plane. `bmi-agent stop` ends them.
//!
//! Deliberately absent: any socket that listens, any packet of a tenant, enrolment (not supported yet).

mod agent;
mod check;
mod config;
mod drivers;
mod events;
mod execute;
mod helper;
mod ledger;
mod plan;
mod start;
mod sync;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bmi_types::chain;
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
    /// Enrol with a control plane on another host. Not supported yet.
    Enrol {
        /// The join token.
        #[arg(long)]
        token: Option<String>,
        /// The control plane.
        #[arg(long)]
        server: Option<String>,
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
        Some(Command::Check) => check(&arguments.config),
        Some(Command::Enrol { .. }) => {
            tracing::error!("enrolment is not supported yet: use control_plane = \"unix:…\" on one host");
            ExitCode::from(USAGE)
        }
        Some(Command::Launch { .. }) => ExitCode::from(USAGE),
    }
}

fn report(result: Result<(), start::StartError>) -> ExitCode {
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
