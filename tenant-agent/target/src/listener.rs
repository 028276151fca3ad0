//! Sockets and signals.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel may hold before they are accepted.
const BACKLOG: i32 = 16;

/// A peer that is silent this long is asked by the kernel; one that does not answer is gone a minute later. Not
/// sooner: firmware does not run its network while a boot menu waits.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Binds every address, whether or not it exists yet (`IP_FREEBIND`).
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    addresses
        .iter()
        .map(|address| listen(*address).map_err(|source| ListenError { address: *address, source }))
        .collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets up an accepted connection.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(15)).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// SIGTERM and SIGINT as a descriptor. Call before any thread is started.
pub fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
