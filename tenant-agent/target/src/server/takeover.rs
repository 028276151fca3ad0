//! Who gets the session: a pure decision (RFC 7143 section 6.3.5, and one session for one node).

use bmi_iscsi::{Candidate, Isid, LoginStatus};

use crate::arguments::Sessions;

/// A normal session that exists.
#[derive(Debug, Clone)]
pub struct Held {
    pub peer: u64,
    pub initiator: String,
    pub isid: Isid,
    pub tsih: u16,
}

/// What to do with a candidate.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Let it in; end this session first.
    Admit { replaces: Option<u64> },
    /// Ask this session for a sign of life first.
    Probe { holder: u64 },
    /// No.
    Refuse(LoginStatus, &'static str),
}

pub fn decide(sessions: Sessions, max: usize, candidate: &Candidate, held: &[Held]) -> Decision {
    if candidate.discovery {
        return Decision::Admit { replaces: None };
    }
    let own = held.iter().find(|held| held.initiator == candidate.initiator && held.isid == candidate.isid);
    if candidate.tsih != 0 && own.is_none_or(|own| own.tsih != candidate.tsih) {
        return Decision::Refuse(LoginStatus::NO_SESSION, "no such session");
    }
    if let Some(own) = own {
        return Decision::Admit { replaces: Some(own.peer) };
    }
    match (sessions, held.first()) {
        (Sessions::One, Some(holder)) => Decision::Probe { holder: holder.peer },
        (Sessions::Many, _) if held.len() >= max => {
            Decision::Refuse(LoginStatus::OUT_OF_RESOURCES, "every session is taken")
        }
        _ => Decision::Admit { replaces: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(initiator: &str, isid: u8) -> Candidate {
        Candidate {
            initiator: initiator.to_owned(),
            isid: Isid([0, 2, 0x3d, 0, 0, isid]),
            tsih: 0,
            user: None,
            discovery: false,
        }
    }

    fn held(peer: u64, initiator: &str, isid: u8) -> Held {
        Held { peer, initiator: initiator.to_owned(), isid: Isid([0, 2, 0x3d, 0, 0, isid]), tsih: 7 }
    }

    #[test]
    fn the_same_name_and_isid_reinstate_and_others_wait_or_join() {
        let one = [held(1, "iqn.a", 1)];
        let admit = |replaces| Decision::Admit { replaces };
        for sessions in [Sessions::One, Sessions::Many] {
            assert_eq!(decide(sessions, 8, &candidate("iqn.a", 1), &[]), admit(None));
            assert_eq!(decide(sessions, 8, &candidate("iqn.a", 1), &one), admit(Some(1)));
        }
        for other in [candidate("iqn.a", 2), candidate("iqn.b", 1)] {
            assert_eq!(decide(Sessions::One, 8, &other, &one), Decision::Probe { holder: 1 });
            assert_eq!(decide(Sessions::Many, 8, &other, &one), admit(None));
            assert!(matches!(decide(Sessions::Many, 1, &other, &one), Decision::Refuse(..)));
        }
        let discovery = Candidate { discovery: true, ..candidate("iqn.b", 1) };
        assert_eq!(decide(Sessions::One, 8, &discovery, &one), admit(None));
    }

    #[test]
    fn a_session_handle_must_be_the_right_one() {
        let one = [held(1, "iqn.a", 1)];
        let with = |tsih| Candidate { tsih, ..candidate("iqn.a", 1) };
        assert_eq!(decide(Sessions::One, 8, &with(7), &one), Decision::Admit { replaces: Some(1) });
        assert!(matches!(
            decide(Sessions::One, 8, &with(8), &one),
            Decision::Refuse(LoginStatus::NO_SESSION, _)
        ));
        assert!(matches!(decide(Sessions::One, 8, &with(7), &[]), Decision::Refuse(..)));
    }
}
