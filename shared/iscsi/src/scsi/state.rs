//! What the sessions of one target share: reservations, mode pages, and unit attentions that one causes for another.
//!
//! Invariants: an attention is reported once, to the nexus it is for; a nexus has at most [`ATTENTIONS_MAX`] of a unit,
//! and those of a nexus end with it; RESERVE (6) ends with its nexus, registrations do not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::reservation::{Identity, Refused, Reservations};
use super::{Mode, Sense, Unit, reports_unit_attention};
use crate::config::TargetConfig;
use crate::wire;

/// Attentions of one unit that wait for one nexus. More are dropped: the first ones tell that much has changed.
const ATTENTIONS_MAX: usize = 8;

#[derive(Debug)]
struct Nexus {
    id: u64,
    who: Identity,
    attentions: VecDeque<(u16, Sense)>,
}

#[derive(Debug)]
struct UnitState {
    number: u16,
    reservations: Reservations,
    mode: Mode,
    /// As after power on. None are saved.
    initial: Mode,
}

#[derive(Debug, Default)]
struct State {
    units: Vec<UnitState>,
    nexuses: Vec<Nexus>,
    next: u64,
}

impl State {
    fn take_attention(&mut self, nexus: u64, lun: u16) -> Option<Sense> {
        let nexus = self.nexuses.iter_mut().find(|other| other.id == nexus)?;
        let at = nexus.attentions.iter().position(|(number, _)| *number == lun)?;
        nexus.attentions.remove(at).map(|(_, sense)| sense)
    }
}

/// The state of one target; each of its connections has a handle.
#[derive(Debug, Clone)]
pub struct TargetState(Arc<Mutex<State>>);

impl TargetState {
    /// Of a target that nobody has reserved.
    #[must_use]
    pub fn new(config: &TargetConfig) -> Self {
        let state = |unit: &Unit| UnitState {
            number: unit.number,
            reservations: Reservations::default(),
            mode: Mode::initial(unit),
            initial: Mode::initial(unit),
        };
        let units = config.units.iter().map(state).collect();
        Self(Arc::new(Mutex::new(State { units, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new nexus, which has to be told that it is one (POWER ON, RESET, OR BUS DEVICE RESET OCCURRED).
    pub(crate) fn join(&self, who: Identity) -> Member {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        let attentions = state.units.iter().map(|unit| (unit.number, Sense::RESET)).collect();
        state.nexuses.push(Nexus { id, who: who.clone(), attentions });
        drop(state);
        Member { state: self.clone(), id, who }
    }
}

/// A nexus. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    state: TargetState,
    id: u64,
    who: Identity,
}

impl Member {
    /// How a unit is set, and what of it keeps a command from being looked at: an attention, which is taken, or another's
    /// reservation.
    pub fn look(&self, lun: u16, cdb: &[u8; 16]) -> (Mode, Option<Refused>) {
        let mut state = self.state.lock();
        let attention = if reports_unit_attention(wire::u8_at(cdb, 0)) {
            state.take_attention(self.id, lun)
        } else {
            None
        };
        let Some(unit) = state.units.iter().find(|unit| unit.number == lun) else {
            return (Mode::default(), None);
        };
        let refused = match attention {
            Some(sense) => Some(Refused::Sense(sense)),
            None if unit.reservations.admits(&self.who, cdb) => None,
            None => Some(Refused::Conflict),
        };
        (unit.mode, refused)
    }

    /// Takes the next attention of a unit.
    pub fn take_attention(&self, lun: u16) -> Option<Sense> {
        self.state.lock().take_attention(self.id, lun)
    }

    /// A reset of a unit: everybody is told, also whoever asked for it (SAM-5 section 6.3.3), RESERVE (6) is over, and
    /// the mode pages are what they were at first, since none are saved (SPC-4 section 7.5).
    pub fn reset(&self, lun: u16) {
        let mut state = self.state.lock();
        for nexus in &mut state.nexuses {
            // It says that everything else may have changed too.
            nexus.attentions.retain(|(number, _)| *number != lun);
            nexus.attentions.push_back((lun, Sense::RESET));
        }
        if let Some(unit) = state.units.iter_mut().find(|unit| unit.number == lun) {
            unit.reservations.reset();
            unit.mode = unit.initial;
        }
    }

    /// Does something with the reservations of a unit.
    pub fn with<T>(&self, lun: u16, act: impl FnOnce(&mut Reservations, &Identity) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let unit = state.units.iter_mut().find(|unit| unit.number == lun)?;
        Some(act(&mut unit.reservations, &self.who))
    }

    /// The mode pages of a unit, as far as they can be changed.
    pub fn mode(&self, lun: u16) -> Mode {
        self.state
            .lock()
            .units
            .iter()
            .find(|unit| unit.number == lun)
            .map_or_else(Mode::default, |unit| unit.mode)
    }

    /// Sets them, and tells everybody else.
    pub fn set_mode(&self, lun: u16, mode: Mode) {
        let mut state = self.state.lock();
        let Some(unit) = state.units.iter_mut().find(|unit| unit.number == lun) else { return };
        if std::mem::replace(&mut unit.mode, mode) == mode {
            return;
        }
        for nexus in state.nexuses.iter_mut().filter(|nexus| nexus.id != self.id) {
            tell(&mut nexus.attentions, lun, Sense::MODE_CHANGED);
        }
    }

    /// Tells others of what a reservation did to them.
    pub fn tell(&self, lun: u16, attentions: &[(Identity, Sense)]) {
        let mut state = self.state.lock();
        for nexus in &mut state.nexuses {
            let told = attentions.iter().filter(|(who, _)| *who == nexus.who);
            for (_, sense) in told {
                tell(&mut nexus.attentions, lun, *sense);
            }
        }
    }
}

/// Adds an attention, unless it is there already or there are many.
fn tell(attentions: &mut VecDeque<(u16, Sense)>, lun: u16, sense: Sense) {
    let waiting = attentions.iter().filter(|(number, _)| *number == lun).count();
    if waiting < ATTENTIONS_MAX && !attentions.contains(&(lun, sense)) {
        attentions.push_back((lun, sense));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.nexuses.retain(|nexus| nexus.id != self.id);
        // Another connection of the same nexus has taken its place already, if it was reinstated.
        if !state.nexuses.iter().any(|nexus| nexus.who == self.who) {
            state.units.iter_mut().for_each(|unit| unit.reservations.release(&self.who));
        }
    }
}
