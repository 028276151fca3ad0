//! Peers that break the protocol, on a real socket: tables of what they send and what the target does about it. After
//! each of them a session that was there before must still be served.

mod chap;
mod login;
mod memory;
mod session;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;

use crate::target::Target;
use crate::wire::{Answer, NO_TAG, Wire, pdu, ten};

/// Within this a connection must be closed. The property says one second; the machine may be busy.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// What the target may have in use at the end, in KiB: the bound of the property.
const RESIDENT_MAX: u64 = 32 * 1024;

/// The last byte of the neighbour's ISID, so that it is not reinstated by the others.
const NEIGHBOUR: u8 = 9;

/// The tag of the ping that ends the answers to a case.
const MARK: u32 = 0xfeed_f00d;

/// What is done about it. Answers before the last one do not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// The connection is closed without an answer.
    Closed,
    /// Login response with this status, then closed.
    Refused(u16),
    /// Only in login: this many responses that mean success, and the connection stays.
    GoesOn(usize),
    /// Reject for this reason (RFC 7143 section 11.17.1), and the session goes on.
    Rejected(u8),
    /// Reject for this reason, then closed.
    RejectedAndClosed(u8),
    /// CHECK CONDITION with this code, and the session goes on.
    Check(u16),
    /// A PDU with this opcode and this third byte, and the session goes on.
    Answered(u8, u8),
    /// Nothing, and the session goes on.
    Ignored,
}

/// One hostile peer.
struct Case {
    name: &'static str,
    /// Does it. In tables of sessions the connection is logged in.
    act: fn(&mut Wire),
    reaction: Reaction,
}

const fn case(name: &'static str, reaction: Reaction, act: fn(&mut Wire)) -> Case {
    Case { name, act, reaction }
}

/// A target with a session that must not notice anything.
struct Scene {
    target: Target,
    neighbour: Wire,
    /// Open at the start.
    descriptors: usize,
    /// The peers whose logins were refused.
    refused: Vec<SocketAddr>,
}

impl Scene {
    fn open() -> Self {
        let target = Target::start(&["--lun", "0=memory:16M", "--lun", "1=memory:1M,ro"]);
        let neighbour = Wire::log_in_as(NEIGHBOUR, target.address, &[]);
        Self::of(target, neighbour)
    }

    fn of(target: Target, neighbour: Wire) -> Self {
        let descriptors = target.descriptors();
        Self { target, neighbour, descriptors, refused: Vec::new() }
    }

    fn play(&mut self, case: &Case, mut wire: Wire, logged_in: bool) {
        (case.act)(&mut wire);
        let start = Instant::now();
        let (reaction, closed) = match case.reaction {
            Reaction::GoesOn(count) => {
                let successes =
                    (0..count).map_while(|_| wire.answer()).filter(|answer| answer.login_status() == 0);
                (Reaction::GoesOn(successes.count()), false)
            }
            _ => {
                if logged_in {
                    wire.send(&pdu(0x40, 0x80).word(16, MARK).word(20, NO_TAG));
                }
                observe(&mut wire, case.reaction == Reaction::Ignored)
            }
        };
        assert_eq!(reaction, case.reaction, "{}", case.name);
        assert!(!closed || start.elapsed() < CLOSED_WITHIN, "{}: {:?}", case.name, start.elapsed());
        if matches!(reaction, Reaction::Refused(_)) {
            self.refused.push(wire.stream.local_addr().unwrap());
        }
        drop(wire);
        self.check_neighbour(case.name);
    }

    fn logins(&mut self, cases: &[Case]) {
        for case in cases {
            let wire = Wire::connect(self.target.address);
            self.play(case, wire, false);
        }
    }

    fn sessions(&mut self, keys: &[&str], cases: &[Case]) {
        for case in cases {
            let wire = Wire::log_in(self.target.address, keys);
            self.play(case, wire, true);
        }
    }

    fn check_neighbour(&mut self, after: &str) {
        self.neighbour.send(&pdu(0x40, 0x80).word(16, MARK).word(20, NO_TAG));
        let pong =
            self.neighbour.answer().unwrap_or_else(|| panic!("the neighbour lost its session: {after}"));
        assert_eq!((pong.header[0], pong.word(16)), (0x20, MARK), "{after}");
        let read = self.neighbour.command(2, &ten(0x28, 0, 1), 0xc0, 512);
        self.neighbour.send(&read);
        let data = self.neighbour.answer().unwrap();
        // Data-In with status GOOD (RFC 7143 section 11.7.3).
        assert_eq!(
            (data.header[0], data.header[1] & 1, data.header[3], data.data.len()),
            (0x25, 1, 0, 512),
            "{after}"
        );
    }

    /// It lives, is small, holds nothing, and has told of each refusal once.
    fn end(self) {
        let resident = self.target.resident();
        assert!(resident < RESIDENT_MAX, "{resident} KiB");
        self.target.await_descriptors(self.descriptors);
        let mut told = BTreeMap::new();
        for event in self.target.stop() {
            if let TargetEvent::LoginRefused { peer, .. } = event {
                *told.entry(peer).or_insert(0) += 1;
            }
        }
        let expected = self.refused.into_iter().map(|peer| (peer, 1)).collect();
        assert_eq!(told, expected, "one login.refused for each refused login");
    }
}

/// Reads to the mark or the end, and names what came last. Disk work may be answered after the mark.
fn observe(wire: &mut Wire, silent: bool) -> (Reaction, bool) {
    let (mut last, mut marked) = (None, false);
    let mut answered = BTreeSet::new();
    let closed = loop {
        match wire.answer() {
            None => break true,
            Some(answer) if answer.word(16) == MARK => marked = true,
            Some(answer) => {
                let new = answer.header[0] != 0x21 || answered.insert(answer.word(16));
                assert!(new, "a command was answered twice: {answer:?}");
                last = Some(answer);
            }
        }
        if marked && (silent || last.is_some()) {
            break false;
        }
    };
    (name(last.as_ref(), closed), closed)
}

fn name(last: Option<&Answer>, closed: bool) -> Reaction {
    let Some(answer) = last else { return if closed { Reaction::Closed } else { Reaction::Ignored } };
    match (answer.header[0], closed) {
        (0x23, true) => Reaction::Refused(answer.login_status()),
        (0x3f, true) => Reaction::RejectedAndClosed(answer.header[2]),
        (0x3f, false) => Reaction::Rejected(answer.header[2]),
        (0x21, false) if answer.header[3] == 2 => {
            Reaction::Check(u16::from_be_bytes([answer.data[14], answer.data[15]]))
        }
        (opcode, false) => Reaction::Answered(opcode, answer.header[2]),
        (opcode, true) => panic!("closed after an answer with opcode {opcode:x}: {answer:?}"),
    }
}

#[test]
fn t4_hostile_logins_are_refused_or_closed_and_disturb_nobody() {
    let mut scene = Scene::open();
    scene.logins(stream::CASES);
    scene.logins(login::CASES);
    scene.end();
}

#[test]
fn t4_hostile_chap_never_leads_to_a_session() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, format!("{}\n", chap::SECRET)).unwrap();
    let path = secret.display().to_string();
    let target =
        Target::start(&["--lun", "0=memory:1M", "--chap-user", chap::USER, "--chap-secret-file", &path]);
    let neighbour = chap::log_in_as(NEIGHBOUR, target.address);
    let mut scene = Scene::of(target, neighbour);
    scene.logins(chap::CASES);
    scene.end();
}

#[test]
fn t4_hostile_sessions_are_answered_or_closed_and_disturb_nobody() {
    let mut scene = Scene::open();
    scene.sessions(&[], session::CASES);
    scene.sessions(&["ImmediateData=No"], session::NO_IMMEDIATE_DATA);
    scene.sessions(&["InitialR2T=No"], session::UNSOLICITED);
    scene.sessions(&["HeaderDigest=CRC32C", "DataDigest=CRC32C"], stream::DIGESTS);
    scene.end();
}
