//! A unix stream socket that never waits.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, sendmsg, socket_with,
};

/// A connected socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, and with `WouldBlock` when whoever listens has no room for one more yet.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // A unix socket is connected at once or not at all (connect(2), EAGAIN).
        retry_on_intr(|| connect(&socket, &SocketAddrUnix::new(path)?))?;
        Ok(Self(socket))
    }

    /// For `poll`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends some of it; nothing when it would wait.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let mut control = SendAncillaryBuffer::default();
        now(retry_on_intr(|| sendmsg(&self.0, slices, &mut control, SendFlags::NOSIGNAL)))
    }

    /// Receives something; nothing when it would wait, 0 at the end.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        now(retry_on_intr(|| recv(&self.0, &mut *buffer, RecvFlags::empty())).map(|(count, _)| count))
    }
}

fn now(result: Result<usize, Errno>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
