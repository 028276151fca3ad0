//! What a target is, and the bounds on what a peer can make it do.

use std::time::Duration;

use crate::scsi::Unit;

/// The longest data segment this side takes in full feature phase, in bytes. 256 KiB is what Linux and libiscsi send;
/// without declaring it, initiators must assume 8 KiB (RFC 7143 section 13.12).
pub const RECEIVE_SEGMENT: u32 = 256 * 1024;

/// The longest data segment during login, in bytes (RFC 7143 section 13.12: the default).
pub const LOGIN_SEGMENT: u32 = 8192;

/// The longest text collected over several PDUs with the C bit, in bytes. All real key sets are below 4 KiB.
pub const TEXT_MAX: usize = 64 * 1024;

/// The most login requests of one connection. CHAP with each stage in its own PDU takes 5.
pub const LOGIN_REQUESTS: u32 = 64;

/// How long a login may take, in time the caller counts. Initiators give up after 15 s themselves.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Commands a session may have open: `cmds_max` of open-iscsi.
pub const WINDOW: u32 = 128;

/// Immediate commands beyond the window. Pings and task management are answered at once and do not count.
pub const IMMEDIATE_TASKS: usize = 8;

/// The longest burst, in bytes, of a Data-In or solicited Data-Out sequence.
pub const MAX_BURST: u32 = 1024 * 1024;

/// The most data a command may bring without being asked, in bytes: what Linux and libiscsi offer, so that their
/// writes wait for nothing. `WINDOW` × this, 32 MiB, bounds the unsolicited memory of a session.
pub const FIRST_BURST: u32 = 256 * 1024;

/// R2Ts of one command that may be unanswered.
pub const OUTSTANDING_R2T: u32 = 8;

/// The longest WRITE or VERIFY with data, in bytes, and what initiators are told (VPD page B0h MAXIMUM TRANSFER
/// LENGTH).
pub const TRANSFER_MAX: u32 = 8 * 1024 * 1024;

/// The longest READ, in bytes: what READ (10) can ask for with blocks of 4096 bytes. UEFI firmware reads a whole file
/// with one command and does not ask for the limit. It costs no memory: a READ is done in pieces.
pub const READ_MAX: u32 = 256 * 1024 * 1024;

/// A READ is done in pieces of this many bytes, each when the one before is mostly sent: what stays in a processor's
/// cache on its way from the page cache to the network.
pub const READ_PIECE: u32 = 256 * 1024;

/// Buffers promised to writes by R2T in one session, in bytes. Further writes wait for their R2T, in order.
pub const SOLICITED_BYTES: u64 = 16 * 1024 * 1024;

/// The only portal group.
pub const PORTAL_GROUP: u16 = 1;

/// One target and its logical units.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Its iSCSI name, in lower case.
    pub name: String,
    /// The initiators that may log in, in lower case. Empty: any.
    pub initiators: Vec<String>,
    /// Whether every login must pass CHAP.
    pub chap: bool,
    /// Its logical units, each number once.
    pub units: Vec<Unit>,
}

impl TargetConfig {
    /// The logical unit with this number.
    #[must_use]
    pub fn unit(&self, number: u16) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.number == number)
    }

    /// Whether this initiator is on the list.
    #[must_use]
    pub fn allows(&self, initiator: &str) -> bool {
        self.initiators.is_empty() || self.initiators.iter().any(|name| name == initiator)
    }
}
