//! tgtd's control socket, as `tgtadm` uses it (tgt 1.0): one request and its answer a connection.
//!
//! `tgtadm` itself is not used: it takes CHAP secrets as arguments, which every process of the host could read. tgtd
//! takes orders from its own user and group only, so a thread of its own becomes that user, connects, and ends.
//!
//! Deliberately absent: whatever the driver does not need. Numbers are the host's, little or big endian alike.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::sync::oneshot;

/// The one target that each tgtd has.
const TARGET: i32 = 1;

/// The driver of targets, in a field of 64 bytes.
const ISCSI: &[u8] = b"iscsi";
const DRIVER_LENGTH: usize = 64;

/// The length of a request without its parameters.
const REQUEST_LENGTH: usize = 120;

/// The length of an answer without what it tells.
const ANSWER_LENGTH: usize = 8;

/// The longest answer taken: a target with its few units and sessions is told in less than 2 KiB each.
const ANSWER_LONGEST: u32 = 256 * 1024;

/// How long tgtd may take to answer: it is a loop that waits for nothing but its sockets.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    New = 0,
    Delete = 1,
    Show = 2,
    Bind = 3,
    Unbind = 4,
    Update = 5,
}

/// What an order is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Target = 1,
    Unit = 2,
    Account = 7,
}

/// What tgtd did not do.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket.
    #[error("asking tgtd")]
    Socket(#[source] io::Error),
    /// It said no.
    #[error("tgtd refused to {doing}: error {code}")]
    Refused {
        /// What it was to do.
        doing: &'static str,
        /// Its own number for why (`tgtadm_error.h`).
        code: u32,
    },
}

/// The control socket of one tgtd.
#[derive(Debug, Clone)]
pub struct Control {
    /// Its path.
    pub socket: PathBuf,
    /// The user and the group of tgtd.
    pub uid: u32,
}

struct Request {
    mode: Mode,
    operation: Operation,
    unit: u64,
    /// `key=value`, comma and so on, as `tgtadm` writes it. Whoever makes it lets no comma in.
    parameters: String,
}

impl Control {
    /// Makes the target. Nobody may log in yet.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn target_make(&self, name: &str) -> Result<(), ControlError> {
        let parameters = format!("targetname={name}");
        self.order("make the target", Mode::Target, Operation::New, 0, parameters).await
    }

    /// Adds a file as a logical unit.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn unit_add(&self, unit: u16, path: &str) -> Result<(), ControlError> {
        let parameters = format!("path={path}");
        self.order("add a volume", Mode::Unit, Operation::New, unit.into(), parameters).await
    }

    /// Gives a unit its serial number, and refuses writes to it when it is read-only.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn unit_set(&self, unit: u16, serial: &str, read_only: bool) -> Result<(), ControlError> {
        let read_only = u8::from(read_only);
        let parameters = format!("targetOps scsi_sn={serial},readonly={read_only}");
        self.order("set up a volume", Mode::Unit, Operation::Update, unit.into(), parameters).await
    }

    /// Makes an account with which initiators may log in.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn account_add(&self, user: &str, secret: &str) -> Result<(), ControlError> {
        let parameters = format!("user={user},password={secret}");
        self.order("make an account", Mode::Account, Operation::New, 0, parameters).await?;
        let bind = format!("user={user}");
        self.order("use an account", Mode::Account, Operation::Bind, 0, bind).await
    }

    /// Removes the account that was added last. No other: tgtd 1.0 ends (SIGSEGV) when it is asked about a target one
    /// of whose earlier accounts was taken from it.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn account_remove_last(&self, user: &str) -> Result<(), ControlError> {
        let parameters = || format!("user={user}");
        self.order("leave an account", Mode::Account, Operation::Unbind, 0, parameters()).await?;
        self.order("remove an account", Mode::Account, Operation::Delete, 0, parameters()).await
    }

    /// Lets an initiator of this name log in, and no other.
    ///
    /// # Errors
    /// When tgtd does not.
    pub async fn initiator_allow(&self, initiator: &str) -> Result<(), ControlError> {
        let parameters = format!("initiator-name={initiator}");
        self.order("let the initiator in", Mode::Target, Operation::Bind, 0, parameters).await
    }

    /// What exists, as text for people.
    ///
    /// # Errors
    /// When tgtd does not tell.
    pub async fn show(&self) -> Result<String, ControlError> {
        let request =
            Request { mode: Mode::Target, operation: Operation::Show, unit: 0, parameters: String::new() };
        let told = self.ask("show the target", request).await?;
        Ok(String::from_utf8_lossy(&told).into_owned())
    }

    async fn order(
        &self,
        doing: &'static str,
        mode: Mode,
        operation: Operation,
        unit: u64,
        parameters: String,
    ) -> Result<(), ControlError> {
        self.ask(doing, Request { mode, operation, unit, parameters }).await.map(|_| ())
    }

    async fn ask(&self, doing: &'static str, request: Request) -> Result<Vec<u8>, ControlError> {
        let (done, answer) = oneshot::channel();
        let Self { socket, uid } = self.clone();
        std::thread::Builder::new()
            .name("tgtd-control".to_owned())
            .spawn(move || {
                let _ = done.send(ask_as(&socket, uid, &request));
            })
            .map_err(ControlError::Socket)?;
        let gone = |_| io::Error::other("the thread that asks ended early");
        // The thread ends with its own limits; nobody waits for one that is fed byte by byte.
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let answer = answer.map_err(|_| ControlError::Socket(io::ErrorKind::TimedOut.into()))?;
        let (code, told) = answer.map_err(gone).and_then(|it| it).map_err(ControlError::Socket)?;
        if code == 0 { Ok(told) } else { Err(ControlError::Refused { doing, code }) }
    }
}

/// Asks as another user. The calling thread stays that user: it must end.
fn ask_as(socket: &Path, uid: u32, request: &Request) -> io::Result<(u32, Vec<u8>)> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // In one piece: tgtd reads what is there when its loop comes round.
    stream.write_all(&request.encode())?;
    let mut head = [0; ANSWER_LENGTH];
    stream.read_exact(&mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let (code, length) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    let mut told = Vec::new();
    if let Some(length) = length.checked_sub(8).filter(|length| *length > 0) {
        stream.take(length.min(ANSWER_LONGEST).into()).read_to_end(&mut told)?;
    }
    Ok((code, told))
}

impl Request {
    fn encode(&self) -> Vec<u8> {
        let parameters: Vec<u8> = match self.parameters.as_bytes() {
            [] => Vec::new(),
            text => text.iter().copied().chain([0]).collect(),
        };
        let length = u32::try_from(REQUEST_LENGTH + parameters.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(REQUEST_LENGTH + parameters.len());
        bytes.extend((self.mode as u32).to_ne_bytes());
        bytes.extend((self.operation as u32).to_ne_bytes());
        bytes.extend(ISCSI.iter().copied().chain(std::iter::repeat(0)).take(DRIVER_LENGTH));
        bytes.extend(length.to_ne_bytes());
        // All targets are shown: asked for one, tgtd tells of its parameters instead.
        let target = if self.operation == Operation::Show { -1 } else { TARGET };
        bytes.extend(target.to_ne_bytes());
        // No session.
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend(self.unit.to_ne_bytes());
        // No connection, no host, incoming accounts, a disk, no force.
        bytes.resize(REQUEST_LENGTH, 0);
        bytes.extend(parameters);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_tgtadm_writes() {
        let request = Request {
            mode: Mode::Unit,
            operation: Operation::New,
            unit: 1,
            parameters: "path=/tmp/v.raw".to_owned(),
        };
        let bytes = request.encode();
        assert_eq!(bytes.len(), 136);
        let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(4), number(72), number(76), number(88)), (2, 0, 136, 1, 1));
        assert_eq!((&bytes[8..13], &bytes[120..]), (&b"iscsi"[..], &b"path=/tmp/v.raw\0"[..]));
    }
}
