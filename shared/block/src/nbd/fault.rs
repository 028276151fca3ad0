//! Why there is no connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What a server did that the protocol does not allow. Never text that the server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody listens, or not for us.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handshake did not end in time.
    #[error("the NBD server did not finish its handshake within {} s", .0.as_secs())]
    Slow(Duration),
    /// The server has no such export.
    #[error("the NBD server has no export named `{0}`")]
    NoExport(String),
    /// The server does not let us have the export.
    #[error("the NBD server refuses the export (error type {0:#x})")]
    Refused(u32),
    /// The server wants TLS.
    #[error("the NBD server insists on TLS, which BMI does not speak over a unix socket")]
    Tls,
    /// The export is not what it was.
    #[error("the export has changed since it was connected first: {0}")]
    Changed(&'static str),
    /// The server is going away.
    #[error("the NBD server is shutting down")]
    ShuttingDown,
    /// The server ended the connection.
    #[error("the NBD server closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection to the NBD server failed")]
    Io(#[from] io::Error),
    /// The server is broken, or hostile.
    #[error("the NBD server broke the protocol")]
    Protocol(#[from] Violation),
}
