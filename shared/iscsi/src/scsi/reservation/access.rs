//! Which command of whom a reservation lets through: the one place that knows (SPC-4 tables 66 and 67, SBC-3 table 13,
//! SPC-2 table 10).

use super::{Identity, Reservations};

/// What a command means to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Passes every reservation: it tells what the unit is.
    Always,
    /// Passes persistent reservations, but not RESERVE (6) of another.
    Shared,
    /// Reads the medium.
    Read,
    /// Writes the medium, or how it is used.
    Write,
    /// RESERVE (6): decided when it is done.
    Reserve,
    /// PERSISTENT RESERVE OUT: decided by its keys, but not beside RESERVE (6) of another.
    Keys,
}

/// The class of an operation code.
pub const fn class(operation: u8) -> Class {
    match operation {
        // REQUEST SENSE, INQUIRY, RELEASE (6), REPORT LUNS.
        0x03 | 0x12 | 0x17 | 0xa0 => Class::Always,
        // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW, READ CAPACITY (10), PERSISTENT RESERVE IN, READ CAPACITY (16)
        // and GET LBA STATUS, REPORT SUPPORTED OPERATION CODES.
        0x00 | 0x1b | 0x1e | 0x25 | 0x5e | 0x9e | 0xa3 => Class::Shared,
        // READ, VERIFY, PRE-FETCH.
        0x08 | 0x28 | 0x88 | 0xa8 | 0x2f | 0x8f | 0xaf | 0x34 | 0x90 => Class::Read,
        0x16 => Class::Reserve,
        0x5f => Class::Keys,
        _ => Class::Write,
    }
}

impl Reservations {
    /// Whether `who` may do something of this class.
    pub fn admits(&self, who: &Identity, class: Class) -> bool {
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
