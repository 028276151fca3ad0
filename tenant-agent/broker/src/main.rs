//! `bmi-broker`: the volumes of one instance, from Ceph to NBD on a unix socket.
//!
//! It stands between a target, which hears a tenant and is assumed to be owned one day, and Ceph, whose key the target
//! must not have. Whoever owns the target gets NBD requests for these volumes and nothing else.
//!
//! Deliberately absent: any socket of a network that listens, any other volume, the right to blocklist anybody, opening
//! a volume a second time: a process whose volume was taken away ends, and whoever started it starts another.
//!
//! Invariants: the first line on standard output is the `listening` event; the exclusive lock of a volume that may be
//! written is held before that, and the key was still good then; a write that was answered is in Ceph, so that nothing
//! is lost with this process.

mod config;
mod protocol;
mod server;
mod socket;
mod start;
mod volume;

use std::path::PathBuf;

use clap::Parser;
use tokio::task::LocalSet;

use start::{Outcome, StartError};

/// The volumes of one instance, from Ceph to NBD on a unix socket.
///
/// FILE is JSON:
///
///   {"socket": "/run/x/nbd.sock",            made anew, for this user only
///    "mon_host": "10.0.0.1:3300,10.0.0.2:3300", "pool": "bmi",
///    "user": "bmi-volume-1", "key": "AQB…",  of Ceph, without `client.`
///    "exports": [
///      {"name": "0", "namespace": "a", "image": "boot", "read_only": false},
///      {"name": "1", "namespace": "a", "image": "config", "read_only": true}]}
///
/// It is read once. Keep it where only this user can read it, or remove it when the first line is there.
#[derive(Debug, Parser)]
#[command(
    name = "bmi-broker",
    version,
    verbatim_doc_comment,
    after_help = "The first line on standard output is {\"event\":\"listening\"}; logs go to standard error (RUST_LOG).\n\n\
        Exit status: 0 ended by SIGTERM, everything answered is in Ceph and the lock is free; 1 cannot start;\n\
        2 usage; 3 fenced: the client is on the blocklist, or the lock or, at the start, the key was taken away, so that\n\
        nothing more was answered.\n\
        After 3 start it again when whoever fenced it wants that.\n\n\
        A client: qemu-img info 'nbd+unix:///0?socket=/run/x/nbd.sock'"
)]
struct Arguments {
    /// What to serve, and how to reach it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Serve on the listening unix socket that is standard input; `socket` is not touched.
    #[arg(long)]
    inherited_socket: bool,
    /// Where processes that served these volumes on this host leave the addresses of their Ceph clients, one a line. A
    /// lock of one of them is broken: start this only when they have ended.
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
}

/// Exit statuses.
const STOPPED: i32 = 0;
const FAILED: i32 = 1;
const FENCED: i32 = 3;

fn main() {
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
    let status = match run(&arguments) {
        Ok(Outcome::Stopped) => STOPPED,
        Ok(Outcome::Fenced) => {
            tracing::error!("fenced: somebody else may write now; what was not answered is dropped");
            FENCED
        }
        Err(error) => {
            tracing::error!("failed: {}", bmi_types::chain(&error));
            FAILED
        }
    };
    std::process::exit(status);
}

fn run(arguments: &Arguments) -> Result<Outcome, StartError> {
    let config = config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let outcome = LocalSet::new().block_on(&runtime, start::serve(arguments, config));
    // Nothing is closed here: an image that was taken away would wait for what may never come.
    std::mem::forget(runtime);
    outcome
}
