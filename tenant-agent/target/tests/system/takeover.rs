//! `--sessions one`, with raw connections: libiscsi would reconnect by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;

use crate::target::{NAME, Target};

/// The answer to a login that is refused because the session is taken.
const TAKEN: u16 = 0x0302;

struct Initiator(TcpStream);

impl Initiator {
    /// Sends a login that goes straight to full feature phase.
    fn begin(target: &Target, name: &str, isid: u8) -> Self {
        let stream = TcpStream::connect(target.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let text = format!("InitiatorName={name}\0TargetName={NAME}\0SessionType=Normal\0");
        let mut pdu = [0; 48];
        pdu[0] = 0x43;
        pdu[1] = 0x87;
        pdu[7] = u8::try_from(text.len()).unwrap();
        pdu[8..14].copy_from_slice(&[0x40, 0, 0x27, 0x23, 0, isid]);
        pdu[27] = 1;
        let mut bytes = pdu.to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        (&stream).write_all(&bytes).unwrap();
        Self(stream)
    }

    fn log_in(target: &Target, name: &str, isid: u8) -> (Self, u16) {
        let mut initiator = Self::begin(target, name, isid);
        let answer = initiator.answer().expect("an answer to the login");
        assert_eq!(answer[0], 0x23);
        (initiator, u16::from_be_bytes([answer[36], answer[37]]))
    }

    /// The next PDU's header, or nothing at the end of the stream.
    fn answer(&mut self) -> Option<[u8; 48]> {
        let mut header = [0; 48];
        self.0.read_exact(&mut header).ok()?;
        let length = (usize::from(header[6]) << 8 | usize::from(header[7])).next_multiple_of(4);
        self.0.read_exact(&mut vec![0; length]).ok()?;
        Some(header)
    }

    fn ping(&mut self) {
        let mut pdu = [0; 48];
        pdu[0] = 0x40;
        pdu[1] = 0x80;
        pdu[19] = 9;
        pdu[20..24].fill(0xff);
        self.0.write_all(&pdu).unwrap();
    }
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
    let (mut old, _) = Initiator::log_in(&target, "iqn.a", 1);
    let before = Instant::now();
    let (mut new, status) = Initiator::log_in(&target, "iqn.a", 1);
    assert_eq!(status, 0);
    assert!(before.elapsed() < Duration::from_millis(900), "without a probe");
    assert_eq!(logout_reason(&target), "reinstated");
    assert!(old.answer().is_none(), "the old connection is closed, and was not pinged");
    new.ping();
    assert_eq!(new.answer().unwrap()[0], 0x20);
}

#[test]
fn b3_a_holder_that_gives_no_sign_of_life_is_fenced_after_a_second() {
    let target = one();
    let (mut old, _) = Initiator::log_in(&target, "iqn.a", 1);
    let before = Instant::now();
    let (_new, status) = Initiator::log_in(&target, "iqn.a", 2);
    assert_eq!(status, 0);
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(old.answer().unwrap()[0], 0x20, "it was asked");
    assert!(old.answer().is_none());
    assert_eq!(logout_reason(&target), "fenced");
}

#[test]
fn b3_a_living_holder_stays_and_raises_a_conflict() {
    let target = one();
    let (mut old, _) = Initiator::log_in(&target, "iqn.a", 1);
    let mut newcomer = Initiator::begin(&target, "iqn.b", 1);
    assert_eq!(old.answer().unwrap()[0], 0x20);
    old.ping();
    let answer = newcomer.answer().unwrap();
    assert_eq!(u16::from_be_bytes([answer[36], answer[37]]), TAKEN);
    let conflict = target.expect(|event| matches!(event, TargetEvent::SessionConflict { .. }));
    let TargetEvent::SessionConflict { peer, holder } = conflict else { unreachable!() };
    assert_eq!(peer, newcomer.0.local_addr().unwrap());
    assert_eq!(holder, old.0.local_addr().unwrap());
    assert_eq!(old.answer().unwrap()[0], 0x20, "its own ping is answered");
    old.ping();
    assert_eq!(old.answer().unwrap()[0], 0x20, "and it goes on");
}

#[test]
fn a_holder_whose_connection_is_gone_is_not_waited_for() {
    let target = one();
    let (old, _) = Initiator::log_in(&target, "iqn.a", 1);
    drop(old);
    let before = Instant::now();
    assert_eq!(Initiator::log_in(&target, "iqn.b", 1).1, 0);
    assert!(before.elapsed() < Duration::from_millis(900));
    assert_eq!(logout_reason(&target), "disconnected");
}

#[test]
fn many_sessions_stand_side_by_side_up_to_a_bound() {
    let target = Target::start(&["--lun", "0=memory:1M"]);
    let mut all: Vec<Initiator> = (0..8)
        .map(|isid| {
            let (initiator, status) = Initiator::log_in(&target, "iqn.a", isid);
            assert_eq!(status, 0);
            initiator
        })
        .collect();
    assert_eq!(Initiator::log_in(&target, "iqn.a", 8).1, TAKEN);
    for initiator in &mut all {
        initiator.ping();
        assert_eq!(initiator.answer().unwrap()[0], 0x20);
    }
}

#[test]
fn half_open_logins_keep_nobody_out() {
    let target = one();
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(target.address).unwrap()).collect();
    assert_eq!(Initiator::log_in(&target, "iqn.a", 1).1, 0);
    drop(idle);
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let target = Target::start(&["--lun", "0=memory:1M"]);
    let (mut good, _) = Initiator::log_in(&target, "iqn.a", 1);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: example\r\n\r\n                  "[..], &[0xff; 64], &[0; 48]]
    {
        let mut stream = TcpStream::connect(target.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    good.ping();
    assert_eq!(good.answer().unwrap()[0], 0x20);
}
