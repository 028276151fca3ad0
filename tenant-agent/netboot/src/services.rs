//! Starting everything in order, and ending on SIGTERM.
//!
//! All sockets are bound before `listening` is said; each may be bound before the address exists, since the agent
//! installs the firewall and the address after the process is there.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use bmi_agent_api::event::NetbootEvent;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{ConfigError, Current, follow, load};
use crate::dhcp::socket::{Sockets, bind};
use crate::event::Events;
use crate::loaders::{LoaderError, Loaders};
use crate::neighbour::neighbour;
use crate::{dhcp, http, tftp};

/// Why the boot services cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration is no good.
    #[error("loading the configuration")]
    Config(#[from] ConfigError),
    /// The loaders are no good.
    #[error("loading the boot loaders")]
    Loaders(#[from] LoaderError),
    /// A socket.
    #[error("serving {service} on {address}")]
    Socket {
        /// Which service.
        service: &'static str,
        /// At which address.
        address: Ipv4Addr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The runtime or its signals.
    #[error("preparing the runtime")]
    Runtime(#[source] std::io::Error),
    /// TFTP stopped.
    #[error("serving TFTP")]
    Tftp(#[from] async_tftp::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When something cannot start or stops.
pub fn run(path: &Path) -> Result<(), ServiceError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServiceError::Runtime)?
        .block_on(serve(path))
}

async fn serve(path: &Path) -> Result<(), ServiceError> {
    let (config, version) = load(path)?;
    let (own, mode) = (config.plan.netboot_address, config.dhcp);
    let loaders = Loaders::read(&config.loaders)?;
    let events = Events::to_stdout();
    let current = Current::new(config);
    let boots = Arc::new(http::Boots::new(neighbour));
    let failed = |service| move |source| ServiceError::Socket { service, address: own, source };

    let listener = http::bind(own).map_err(failed("HTTP"))?;
    let transfers = bind(own, tftp::PORT).map_err(failed("TFTP"))?;
    let sockets = Sockets::bind(own, mode).map_err(failed("DHCP"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Runtime)?;

    events.say(NetbootEvent::Listening { address: own });
    tokio::spawn(follow(path.to_owned(), version, current.clone()));
    if let Some(sockets) = sockets {
        let (boots, loaders) = (Arc::clone(&boots), loaders.clone());
        tokio::spawn(dhcp::socket::serve(sockets, current.clone(), boots, loaders, events.clone()));
    }
    tokio::select! {
        served = tftp::serve(transfers, current.clone(), loaders.clone(), events.clone()) => served.map_err(ServiceError::Tftp),
        served = http::serve(listener, current, boots, loaders, events) => served.map_err(failed("HTTP")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
