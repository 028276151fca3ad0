//! An iSCSI target (RFC 7143) as a state machine: bytes go in, bytes, events and block work come out.
//!
//! [`Connection`] is fed with what a peer sent and asked for what to do next, in the manner of rustls and quinn-proto.
//! Around it: `frame` cuts PDUs, `login` negotiates, `scsi` turns command descriptor blocks into [`Work`] and
//! results into status and sense.
//!
//! Deliberately absent: sockets, files, threads, a clock (time is a parameter), randomness (a parameter as well),
//! connections beyond one a session, error recovery above level 0.
//!
//! Invariants: no input makes it panic; what a peer can make it hold is bounded by the constants in `config`;
//! nothing is allocated from a length field before that field was compared with what this side declared; a secret
//! never reaches an event or an error.
#![forbid(unsafe_code)]

mod buffers;
mod config;
mod connection;
mod frame;
mod header;
mod login;
mod scsi;
mod text;
mod wire;

pub use config::{
    FIRST_BURST, LOGIN_TIMEOUT, MAX_BURST, OUTSTANDING_R2T, PORTAL_GROUP, READ_MAX, READ_PIECE,
    RECEIVE_SEGMENT, SOLICITED_BYTES, TRANSFER_MAX, TargetConfig, WINDOW,
};
pub use connection::{Candidate, CloseReason, Connection, Event, Outgoing, Seed, Task, TaskId};
pub use header::{Isid, Opcode};
pub use login::{Mutual, Status as LoginStatus};
pub use scsi::{Fault, Outcome, Range, Sense, SenseKey, TargetState, Unit, UnitKind, Work};
