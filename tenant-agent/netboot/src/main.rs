//! `bmi-netboot`: the boot services of one provisioning network. DHCP gives addresses and names a loader, TFTP and
//! HTTP serve the loaders, HTTP serves each node the iPXE script that logs in to its own target.
//!
//! It runs unprivileged in a network namespace that holds only its address. Configuration is a file it reads again
//! when it is replaced; events are JSON lines on standard output; logs go to standard error.
//!
//! Deliberately absent: any way to be asked for something by the agent or to ask it (one-way, section 6 of the
//! design), raw sockets, disk access after start, TLS (Debian's iPXE and much firmware speak plain HTTP only).
//!
//! Invariants: a boot secret is only ever in the answer to a token that was issued to that node in its own DHCP
//! transaction; firmware never receives an error page; every table has a bound.

mod config;
mod dhcp;
mod event;
mod http;
mod loaders;
mod neighbour;
mod script;
mod services;
mod tftp;
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The boot services of one provisioning network: DHCP, TFTP and HTTP.
#[derive(Debug, Parser)]
#[command(name = "bmi-netboot", version)]
struct Arguments {
    /// Configuration, JSON, written by the agent. It is read again whenever it is replaced.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // Standard error may be full and not block: to tell of that there would be a panic.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    match services::run(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            tracing::error!("cannot start: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
