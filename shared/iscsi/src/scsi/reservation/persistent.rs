//! PERSISTENT RESERVE OUT (SPC-4 section 6.16).

use super::{Held, Identity, Registrant, Reservations, Type};
use crate::scsi::Sense;
use crate::wire;

/// The most registrations of one unit. More sessions than that do not exist.
const REGISTRANTS_MAX: usize = 64;

/// Length of the parameter list.
pub const LIST: u32 = 24;

/// What is asked (SPC-4 table 180).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceAction {
    Register,
    Reserve(Type),
    Release(Type),
    Clear,
    Preempt(Type),
    PreemptAndAbort(Type),
    RegisterAndIgnoreExistingKey,
}

/// A request, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub action: ServiceAction,
    /// The key the asker is registered with.
    pub key: u64,
    /// The other key: the new one, or that of who is preempted.
    pub other: u64,
}

/// What a request changed for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Unit attentions, and for whom.
    pub attentions: Vec<(Identity, Sense)>,
    /// Whose tasks must end.
    pub aborted: Vec<Identity>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Sense(Sense),
}

impl ServiceAction {
    /// From the CDB.
    pub fn read(cdb: &[u8; 16]) -> Result<Self, Sense> {
        let (scope, kind) = (wire::u8_at(cdb, 2) >> 4, Type::read(wire::u8_at(cdb, 2) & 0x0f));
        let typed = || kind.filter(|_| scope == 0).ok_or(Sense::invalid_field(2));
        Ok(match wire::u8_at(cdb, 1) & 0x1f {
            0 => Self::Register,
            1 => Self::Reserve(typed()?),
            2 => Self::Release(typed()?),
            3 => Self::Clear,
            4 => Self::Preempt(typed()?),
            5 => Self::PreemptAndAbort(typed()?),
            6 => Self::RegisterAndIgnoreExistingKey,
            _ => return Err(Sense::invalid_field(1)),
        })
    }
}

impl Request {
    /// From the parameter list.
    pub fn read(action: ServiceAction, list: &[u8]) -> Result<Self, Sense> {
        if list.len() != wire::index(LIST) {
            return Err(Sense::PARAMETER_LIST_LENGTH);
        }
        // SPEC_I_PT, ALL_TG_PT and APTPL are not supported (REPORT CAPABILITIES says so).
        let registers =
            matches!(action, ServiceAction::Register | ServiceAction::RegisterAndIgnoreExistingKey);
        if registers && wire::u8_at(list, 20) & 0x0d != 0 {
            return Err(Sense::invalid_in_list(20));
        }
        Ok(Self { action, key: wire::u64_at(list, 0), other: wire::u64_at(list, 8) })
    }
}

impl Reservations {
    /// Does what `who` asks, or refuses it and changes nothing.
    pub fn persistent(&mut self, who: &Identity, request: Request) -> Result<Effect, Refused> {
        match request.action {
            ServiceAction::Register => {
                let registered = self.registrant(who).map_or(0, |registrant| registrant.key);
                if request.key != registered {
                    return Err(Refused::Conflict);
                }
                self.register(who, request.other)
            }
            ServiceAction::RegisterAndIgnoreExistingKey => self.register(who, request.other),
            action => {
                if self.registrant(who).is_none_or(|registrant| registrant.key != request.key) {
                    return Err(Refused::Conflict);
                }
                match action {
                    ServiceAction::Reserve(kind) => self.take(who, kind),
                    ServiceAction::Release(kind) => self.give_up(who, kind),
                    ServiceAction::Preempt(kind) => self.preempt(who, request.other, kind),
                    ServiceAction::PreemptAndAbort(kind) => {
                        let mut effect = self.preempt(who, request.other, kind)?;
                        // Not those who are only told that the reservation is another one now.
                        let preempted = |sense: Sense| sense == Sense::REGISTRATIONS_PREEMPTED;
                        effect.aborted = effect
                            .attentions
                            .iter()
                            .filter(|(_, sense)| preempted(*sense))
                            .map(|(who, _)| who.clone())
                            .collect();
                        Ok(effect)
                    }
                    _ => Ok(self.clear(who)),
                }
            }
        }
    }

    fn register(&mut self, who: &Identity, key: u64) -> Result<Effect, Refused> {
        // RESERVE (6) and registrations exclude each other.
        if self.legacy.is_some() {
            return Err(Refused::Conflict);
        }
        let at = self.registrants.iter().position(|registrant| registrant.who == *who);
        let mut effect = Effect::default();
        match (at, key) {
            (None, 0) => return Ok(effect),
            (None, key) => {
                if self.registrants.len() >= REGISTRANTS_MAX {
                    return Err(Refused::Sense(Sense::INSUFFICIENT_REGISTRATION_RESOURCES));
                }
                self.registrants.push(Registrant { who: who.clone(), key });
            }
            (Some(at), 0) => {
                self.registrants.swap_remove(at);
                let last = self.registrants.is_empty();
                let ends = |held: &mut Held| match &held.holder {
                    Some(holder) => holder == who,
                    None => last,
                };
                // The others learn of it where their own access rested on it (SPC-4 section 5.12.11.2.2).
                if self.held.take_if(ends).is_some_and(|held| held.kind.admits_registrants()) {
                    effect.attentions = self.others(who, Sense::RESERVATIONS_RELEASED);
                }
            }
            (Some(at), key) => {
                if let Some(registrant) = self.registrants.get_mut(at) {
                    registrant.key = key;
                }
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effect)
    }

    fn take(&mut self, who: &Identity, kind: Type) -> Result<Effect, Refused> {
        match &self.held {
            Some(held) if !self.holds(who) || held.kind != kind => return Err(Refused::Conflict),
            Some(_) => {}
            None => self.held = Some(Held::new(who, kind)),
        }
        Ok(Effect::default())
    }

    fn give_up(&mut self, who: &Identity, kind: Type) -> Result<Effect, Refused> {
        let mut effect = Effect::default();
        if let Some(held) = self.held.as_ref().filter(|_| self.holds(who)) {
            if held.kind != kind {
                return Err(Refused::Sense(Sense::INVALID_RELEASE));
            }
            self.held = None;
            if kind.admits_registrants() {
                effect.attentions = self.others(who, Sense::RESERVATIONS_RELEASED);
            }
        }
        Ok(effect)
    }

    fn clear(&mut self, who: &Identity) -> Effect {
        let attentions = self.others(who, Sense::RESERVATIONS_PREEMPTED);
        self.registrants.clear();
        self.held = None;
        self.generation = self.generation.wrapping_add(1);
        Effect { attentions, aborted: Vec::new() }
    }

    fn preempt(&mut self, who: &Identity, key: u64, kind: Type) -> Result<Effect, Refused> {
        let all = self.held.as_ref().is_some_and(|held| held.kind.is_held_by_all());
        if key == 0 && !all {
            return Err(Refused::Sense(Sense::invalid_in_list(8)));
        }
        let named = |registrant: &Registrant| (all && key == 0) || registrant.key == key;
        if !self.registrants.iter().any(named) {
            return Err(Refused::Conflict);
        }
        let preempts_holder = match &self.held {
            Some(Held { holder: Some(holder), .. }) => self.registrant(holder).is_some_and(named),
            Some(Held { holder: None, .. }) => key == 0,
            None => false,
        };
        let attentions: Vec<(Identity, Sense)> = self
            .registrants
            .iter()
            .filter(|registrant| named(registrant) && registrant.who != *who)
            .map(|registrant| (registrant.who.clone(), Sense::REGISTRATIONS_PREEMPTED))
            .collect();
        // Whoever preempts stays registered when the reservation becomes theirs; naming only oneself ends oneself.
        self.registrants.retain(|registrant| !named(registrant) || registrant.who == *who);
        let mut effect = Effect { attentions, aborted: Vec::new() };
        if preempts_holder {
            let before = self.held.replace(Held::new(who, kind));
            if before.is_some_and(|before| before.kind != kind) {
                effect.attentions.extend(self.others(who, Sense::RESERVATIONS_RELEASED));
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effect)
    }

    fn others(&self, who: &Identity, sense: Sense) -> Vec<(Identity, Sense)> {
        let others = self.registrants.iter().filter(|registrant| registrant.who != *who);
        others.map(|registrant| (registrant.who.clone(), sense)).collect()
    }
}

impl Held {
    fn new(who: &Identity, kind: Type) -> Self {
        Self { holder: (!kind.is_held_by_all()).then(|| who.clone()), kind }
    }
}
