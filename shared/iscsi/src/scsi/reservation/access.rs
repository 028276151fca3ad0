//! Which command of whom a reservation lets through: the one place that knows (SPC-4 tables 66 and 67, SBC-3 table 13,
//! SPC-2 table 10).

use super::{Identity, Reservations};
use crate::wire;

/// What a command means to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Passes every reservation: it tells what the unit is.
    Always,
    /// Passes persistent reservations, but not RESERVE (6) of another.
    Shared,
    /// Reads the medium, or how it is used.
    Read,
    /// Writes the medium, or changes how it is used.
    Write,
    /// RESERVE (6): decided when it is done.
    Reserve,
    /// PERSISTENT RESERVE OUT: decided by its keys, but not beside RESERVE (6) of another.
    Keys,
}

/// The class of a command.
fn class(cdb: &[u8; 16]) -> Class {
    let byte = |at| wire::u8_at(cdb, at);
    match byte(0) {
        // REQUEST SENSE, INQUIRY, RELEASE (6), REPORT LUNS.
        0x03 | 0x12 | 0x17 | 0xa0 => Class::Always,
        // TEST UNIT READY, READ CAPACITY (10), PERSISTENT RESERVE IN.
        0x00 | 0x25 | 0x5e => Class::Shared,
        // START STOP UNIT that starts, without a power condition; PREVENT ALLOW MEDIUM REMOVAL that allows.
        0x1b if byte(4) & 0xf1 == 0x01 => Class::Shared,
        0x1e if byte(4) & 0x03 == 0 => Class::Shared,
        // READ CAPACITY (16).
        0x9e if byte(1) & 0x1f == 0x10 => Class::Shared,
        // READ, VERIFY, PRE-FETCH, MODE SENSE, GET LBA STATUS, REPORT SUPPORTED OPERATION CODES.
        0x08 | 0x28 | 0x88 | 0xa8 | 0x2f | 0x8f | 0xaf | 0x34 | 0x90 | 0x1a | 0x5a | 0x9e | 0xa3 => {
            Class::Read
        }
        0x16 => Class::Reserve,
        0x5f => Class::Keys,
        _ => Class::Write,
    }
}

impl Reservations {
    /// Whether `who` may do this.
    pub fn admits(&self, who: &Identity, cdb: &[u8; 16]) -> bool {
        let class = class(cdb);
        if self.legacy.as_ref().is_some_and(|holder| holder != who) {
            return class == Class::Always;
        }
        let Some(held) = &self.held else { return true };
        if self.holds(who) || held.kind.admits_registrants() && self.registrant(who).is_some() {
            return true;
        }
        match class {
            Class::Always | Class::Shared | Class::Keys | Class::Reserve => true,
            Class::Read => !held.kind.excludes_reading(),
            Class::Write => false,
        }
    }
}
