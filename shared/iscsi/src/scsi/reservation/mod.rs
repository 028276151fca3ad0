//! Reservations of one logical unit: RESERVE (6) (SPC-2 section 7.21) and persistent ones (SPC-4 section 5.12).
//!
//! Pure: who asks for what goes in, what it changed and whom that concerns comes out.
//!
//! Deliberately absent: persistence through power loss (APTPL), registering for others (SPEC_I_PT), REGISTER AND MOVE.
//! A registration lives as long as the target's process, also without its session.

mod access;
mod persistent;
mod report;

pub use persistent::{LIST, Refused, Request, ServiceAction};
pub use report::read;

use crate::header::Isid;

/// The two names that make an I_T nexus, since there is one target port (RFC 7143 section 4.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The initiator's name, in lower case.
    pub initiator: String,
    /// Its part of the session's name.
    pub isid: Isid,
}

/// Types of a persistent reservation (SPC-4 table 69).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrantsOnly = 5,
    ExclusiveAccessRegistrantsOnly = 6,
    WriteExclusiveAllRegistrants = 7,
    ExclusiveAccessAllRegistrants = 8,
}

impl Type {
    /// The type with this number.
    pub const fn read(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::WriteExclusive,
            3 => Self::ExclusiveAccess,
            5 => Self::WriteExclusiveRegistrantsOnly,
            6 => Self::ExclusiveAccessRegistrantsOnly,
            7 => Self::WriteExclusiveAllRegistrants,
            8 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    /// Whether others may not even read.
    const fn excludes_reading(self) -> bool {
        matches!(
            self,
            Self::ExclusiveAccess
                | Self::ExclusiveAccessRegistrantsOnly
                | Self::ExclusiveAccessAllRegistrants
        )
    }

    /// Whether whoever is registered has access.
    const fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether whoever is registered holds it.
    const fn is_held_by_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }
}

/// Who is registered, and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Registrant {
    who: Identity,
    key: u64,
}

/// A persistent reservation. Without a holder it is held by all registrants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    holder: Option<Identity>,
    kind: Type,
}

/// The reservations of one logical unit.
#[derive(Debug, Default)]
pub struct Reservations {
    generation: u32,
    registrants: Vec<Registrant>,
    held: Option<Held>,
    /// Who holds RESERVE (6).
    legacy: Option<Identity>,
}

impl Reservations {
    fn registrant(&self, who: &Identity) -> Option<&Registrant> {
        self.registrants.iter().find(|registrant| registrant.who == *who)
    }

    fn holds(&self, who: &Identity) -> bool {
        self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => holder == who,
            None => self.registrant(who).is_some(),
        })
    }

    /// RESERVE (6). Whether it is theirs now.
    pub fn reserve(&mut self, who: &Identity) -> bool {
        // Where persistent reservations are in use, this kind is not (SPC-4 section 5.12.3).
        if !self.registrants.is_empty() || self.legacy.as_ref().is_some_and(|holder| holder != who) {
            return false;
        }
        self.legacy = Some(who.clone());
        true
    }

    /// RELEASE (6). By anybody but the holder it does nothing.
    pub fn release(&mut self, who: &Identity) {
        if self.legacy.as_ref() == Some(who) {
            self.legacy = None;
        }
    }

    /// A reset of the unit ends RESERVE (6), and no persistent reservation.
    pub fn reset(&mut self) {
        self.legacy = None;
    }
}
