//! From a configuration to a server, and from a signal to its end.

use std::future::poll_fn;
use std::io::{self, Write};
use std::rc::Rc;

use bmi_agent_api::config::BrokerConfig;
use bmi_agent_api::event::{BrokerEvent, Line};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Arguments;
use crate::config::ConfigError;
use crate::server::{Ended, Export, serve as serve_exports};
use crate::socket;
use crate::volume::{Volume, VolumeError};

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("the configuration is not usable")]
    Config(#[from] ConfigError),
    /// The runtime or signals.
    #[error("preparing the runtime")]
    Runtime(#[source] io::Error),
    /// Ceph.
    #[error("opening the volumes")]
    Open(#[source] Box<dyn std::error::Error>),
    /// The socket.
    #[error("listening on {path}")]
    Listen {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever waits for the first line.
    #[error("saying that it listens")]
    Say(#[source] io::Error),
    /// At the end.
    #[error("ending the use of the volumes")]
    Close(#[source] VolumeError),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By a signal; everything that was answered is in Ceph.
    Stopped,
    /// Somebody else may write now.
    Fenced,
}

/// Serves until a signal comes or a volume is taken away.
///
/// # Errors
/// When it cannot start, or cannot end well.
pub async fn serve(arguments: &Arguments, config: BrokerConfig) -> Result<Outcome, StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let exports = tokio::select! {
        opened = open(&config, arguments) => match opened {
            Ok(exports) => exports,
            Err(VolumeError::Fenced(error)) => {
                tracing::error!(error = bmi_types::chain(&*error), "fenced while opening");
                return Ok(Outcome::Fenced);
            }
            Err(error) => return Err(StartError::Open(error.into())),
        },
        () = asked(&mut terminate, &mut interrupt) => return Ok(Outcome::Stopped),
    };
    let listener = listen(&config, arguments.inherited_socket)?;
    // What was needed to get here is not kept: the key is in the library alone.
    drop(config);
    say_listening().map_err(StartError::Say)?;
    let exports = Rc::new(exports);
    let ended = serve_exports(listener, Rc::clone(&exports), asked(&mut terminate, &mut interrupt)).await;
    if ended == Ended::Fenced {
        return Ok(Outcome::Fenced);
    }
    // Every connection is over, and with it whoever else had them.
    for export in Rc::into_inner(exports).into_iter().flatten() {
        match export.into_volume().close().await {
            Ok(()) => {}
            Err(VolumeError::Fenced(_)) => return Ok(Outcome::Fenced),
            Err(error) => return Err(StartError::Close(error)),
        }
    }
    Ok(Outcome::Stopped)
}

async fn open(
    config: &BrokerConfig,
    arguments: &Arguments,
) -> Result<Vec<Export<crate::volume::rbd::RbdVolume>>, VolumeError> {
    let opened = crate::volume::rbd::open(config, arguments.clients.as_deref()).await?;
    let named = config.exports.iter().zip(opened);
    Ok(named.map(|(export, volume)| Export::new(export.name.clone(), volume, export.read_only)).collect())
}

async fn asked(terminate: &mut Signal, interrupt: &mut Signal) {
    poll_fn(|context| {
        let asked = terminate.poll_recv(context).is_ready() || interrupt.poll_recv(context).is_ready();
        if asked { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn listen(config: &BrokerConfig, inherited: bool) -> Result<UnixListener, StartError> {
    let (path, made) = if inherited {
        ("standard input".to_owned(), socket::inherit())
    } else {
        (config.socket.display().to_string(), socket::make(&config.socket))
    };
    let made = made.and_then(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    made.map_err(|source| StartError::Listen { path, source })
}

fn say_listening() -> io::Result<()> {
    let line = Line::of_now(BrokerEvent::Listening)?;
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
