//! `--sessions one`, with raw connections: libiscsi would reconnect by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;

use crate::target::Target;
use crate::wire::{NO_TAG, Wire, login, names_of, pdu};

/// The answer to a login that is refused because the session is taken.
const TAKEN: u16 = 0x0302;

/// Sends a login that goes straight to full feature phase.
fn begin(target: &Target, name: &str, isid: u8) -> Wire {
    let mut wire = Wire::connect(target.address);
    wire.send(&login(0x87, &names_of(name, &[])).byte(13, isid));
    wire
}

/// The same, and what came of it.
fn log_in(target: &Target, name: &str, isid: u8) -> (Wire, u16) {
    let mut wire = begin(target, name, isid);
    let answer = wire.answer().expect("an answer to the login");
    assert_eq!(answer.header[0], 0x23);
    (wire, answer.login_status())
}

fn ping(wire: &mut Wire) {
    wire.send(&pdu(0x40, 0x80).word(16, 9).word(20, NO_TAG));
}

/// The opcode of the next PDU.
fn opcode(wire: &mut Wire) -> u8 {
    wire.answer().unwrap().header[0]
}

fn one() -> Target {
    Target::start(&["--lun", "0=memory:1M", "--sessions", "one"])
}

fn logout_reason(target: &Target) -> String {
    match target.expect(|event| matches!(event, TargetEvent::Logout { .. })) {
        TargetEvent::Logout { reason, .. } => reason,
        _ => unreachable!(),
    }
}

#[test]
fn b3_the_same_name_and_isid_reinstate_at_once() {
    let target = one();
    let (mut old, _) = log_in(&target, "iqn.a", 1);
    let before = Instant::now();
    let (mut new, status) = log_in(&target, "iqn.a", 1);
    assert_eq!(status, 0);
    assert!(before.elapsed() < Duration::from_millis(900), "without a probe");
    assert_eq!(logout_reason(&target), "reinstated");
    assert!(old.answer().is_none(), "the old connection is closed, and was not pinged");
    ping(&mut new);
    assert_eq!(opcode(&mut new), 0x20);
}

#[test]
fn b3_a_holder_that_gives_no_sign_of_life_is_fenced_after_a_second() {
    let target = one();
    let (mut old, _) = log_in(&target, "iqn.a", 1);
    let before = Instant::now();
    let (_new, status) = log_in(&target, "iqn.a", 2);
    assert_eq!(status, 0);
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(opcode(&mut old), 0x20, "it was asked");
    assert!(old.answer().is_none());
    assert_eq!(logout_reason(&target), "fenced");
}

#[test]
fn b3_a_living_holder_stays_and_raises_a_conflict() {
    let target = one();
    let (mut old, _) = log_in(&target, "iqn.a", 1);
    let mut newcomer = begin(&target, "iqn.b", 1);
    assert_eq!(opcode(&mut old), 0x20);
    ping(&mut old);
    let answer = newcomer.answer().unwrap();
    assert_eq!(answer.login_status(), TAKEN);
    let conflict = target.expect(|event| matches!(event, TargetEvent::SessionConflict { .. }));
    let TargetEvent::SessionConflict { peer, holder } = conflict else { unreachable!() };
    assert_eq!(peer, newcomer.stream.local_addr().unwrap());
    assert_eq!(holder, old.stream.local_addr().unwrap());
    assert_eq!(opcode(&mut old), 0x20, "its own ping is answered");
    ping(&mut old);
    assert_eq!(opcode(&mut old), 0x20, "and it goes on");
}

#[test]
fn a_holder_whose_connection_is_gone_is_not_waited_for() {
    let target = one();
    let (old, _) = log_in(&target, "iqn.a", 1);
    drop(old);
    let before = Instant::now();
    assert_eq!(log_in(&target, "iqn.b", 1).1, 0);
    assert!(before.elapsed() < Duration::from_millis(900));
    assert_eq!(logout_reason(&target), "disconnected");
}

#[test]
fn many_sessions_stand_side_by_side_up_to_a_bound() {
    let target = Target::start(&["--lun", "0=memory:1M"]);
    let mut all: Vec<Wire> = (0..8)
        .map(|isid| {
            let (initiator, status) = log_in(&target, "iqn.a", isid);
            assert_eq!(status, 0);
            initiator
        })
        .collect();
    assert_eq!(log_in(&target, "iqn.a", 8).1, TAKEN);
    for initiator in &mut all {
        ping(initiator);
        assert_eq!(opcode(initiator), 0x20);
    }
}

#[test]
fn half_open_logins_keep_nobody_out() {
    let target = one();
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(target.address).unwrap()).collect();
    assert_eq!(log_in(&target, "iqn.a", 1).1, 0);
    drop(idle);
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let target = Target::start(&["--lun", "0=memory:1M"]);
    let (mut good, _) = log_in(&target, "iqn.a", 1);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: example\r\n\r\n                  "[..], &[0xff; 64], &[0; 48]]
    {
        let mut stream = TcpStream::connect(target.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    ping(&mut good);
    assert_eq!(opcode(&mut good), 0x20);
}
