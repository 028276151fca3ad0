//! `bmi-target`: an iSCSI target for one node's disk, and a plain stand-alone iSCSI target.
//!
//! One thread polls all sockets and does all disk work inline; a second one writes the event lines, so that a slow
//! reader of standard output never stops the disk. Logs go to standard error.
//!
//! Deliberately absent: any way to be told something while it runs, except the boot gate's file; a network client;
//! a key of any store; daemonizing.
//!
//! Invariants: the first line on standard output is the `listening` event; with `--sessions one` at most one normal
//! session exists, and its writes are finished before its successor's login is answered; a login that was refused
//! has seen no block.

mod arguments;
mod credentials;
mod disk;
mod events;
mod listener;
mod server;
mod steps;

use std::process::ExitCode;

use arguments::Arguments;
use bmi_agent_api::event::TargetEvent;
use clap::Parser;

/// What keeps the target from starting.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot open a logical unit")]
    Disk(#[from] disk::OpenError),
    #[error("cannot read a secret")]
    Credentials(#[from] credentials::CredentialError),
    #[error("cannot listen")]
    Listen(#[from] listener::ListenError),
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot start the event writer")]
    Events(#[source] std::io::Error),
}

fn main() -> ExitCode {
    // A thread that is gone would leave work behind that never ends. A process that is gone is started again.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let arguments = Arguments::parse();
    if let Some(fault) = arguments.fault() {
        use clap::CommandFactory;
        Arguments::command().error(clap::error::ErrorKind::ValueValidation, fault).exit();
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // Standard error may be full and not block: to tell of that there would be a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot start: {}", bmi_types::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), StartError> {
    // Before any thread exists, so that all inherit the mask.
    let signals = listener::signals().map_err(StartError::Signals)?;
    let credentials = credentials::open(arguments)?;
    let open = |lun| disk::open(lun, arguments.block_size.bytes());
    let stores = arguments.lun.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let listeners = listener::bind(&arguments.listen)?;
    let events = events::Events::start(std::io::stdout()).map_err(StartError::Events)?;
    for listener in &listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, target.name = %arguments.target, "listening");
            events.send(&TargetEvent::Listening { address });
        }
    }
    server::Server::new(arguments, stores, credentials, listeners, events)
        .map_err(StartError::Events)?
        .run(&signals);
    Ok(())
}
