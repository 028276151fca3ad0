//! Login requests that break RFC 7143 sections 6 and 11.12.

use super::Reaction::{GoesOn, Refused};
use super::{Case, case};
use crate::wire::{LOGIN_TAG, Pdu, Wire, login, names};

/// A protocol fault of the initiator (RFC 7143 section 11.13.5).
const INITIATOR_ERROR: u16 = 0x0200;

pub const CASES: &[Case] = &[
    case("a version there is not", Refused(0x0205), |wire| send(wire, 0x87, |request| request.byte(3, 1))),
    case("a next stage there is not", Refused(INITIATOR_ERROR), |wire| send(wire, 0x86, |request| request)),
    case("a first stage there is not", Refused(INITIATOR_ERROR), |wire| send(wire, 0x8b, |request| request)),
    case("full feature phase as first stage", Refused(INITIATOR_ERROR), |wire| {
        send(wire, 0x8f, |request| request);
    }),
    case("a transit that stays", Refused(INITIATOR_ERROR), |wire| send(wire, 0x85, |request| request)),
    case("a transit backwards", Refused(INITIATOR_ERROR), |wire| send(wire, 0x84, |request| request)),
    case("C together with T", Refused(INITIATOR_ERROR), |wire| send(wire, 0xc7, |request| request)),
    case("C without text", Refused(INITIATOR_ERROR), |wire| wire.send(&login(0x44, &[]))),
    case("text without an end", Refused(INITIATOR_ERROR), |wire| {
        // 64 KiB are taken, a segment more is not.
        for _ in 0..9 {
            wire.send(&login(0x44, &[b'k'; 8192]));
        }
    }),
    case("requests without an end", Refused(INITIATOR_ERROR), |wire| {
        wire.send(&login(0x04, &names(&[])));
        for _ in 0..64 {
            wire.send(&login(0x04, &[]));
        }
    }),
    case("another task tag", Refused(INITIATOR_ERROR), |wire| {
        second(wire, |request| request.word(16, LOGIN_TAG + 1));
    }),
    case("another ISID", Refused(INITIATOR_ERROR), |wire| second(wire, |request| request.byte(13, 9))),
    case("another TSIH", Refused(INITIATOR_ERROR), |wire| second(wire, |request| request.byte(15, 9))),
    case("another CID", Refused(INITIATOR_ERROR), |wire| second(wire, |request| request.byte(21, 9))),
    case("another stage than the last", Refused(INITIATOR_ERROR), |wire| {
        second(wire, |request| request.byte(1, 0x81));
    }),
    case("another ISID between C and the rest", Refused(INITIATOR_ERROR), |wire| {
        wire.send(&login(0x44, b"InitiatorName="));
        wire.send(&login(0x87, b"iqn.a\0").byte(13, 9));
    }),
    case("a session there is not", Refused(0x020a), |wire| send(wire, 0x87, |request| request.byte(15, 200))),
    case("text without a NUL", Refused(INITIATOR_ERROR), |wire| {
        let text = names(&["ErrorRecoveryLevel=0"]);
        wire.send(&login(0x87, &text[..text.len() - 1]));
    }),
    case("text without an equals sign", Refused(INITIATOR_ERROR), |wire| with_keys(wire, &["ErrorRecovery"])),
    case("a key without a name", Refused(INITIATOR_ERROR), |wire| with_keys(wire, &["=Yes"])),
    case("a key of 64 letters", Refused(INITIATOR_ERROR), |wire| {
        let key = format!("{}=1", "k".repeat(64));
        with_keys(wire, &[&key]);
    }),
    case("a value of 16 KiB", Refused(INITIATOR_ERROR), |wire| {
        wire.send(&login(0x44, b"X-a="));
        wire.send(&login(0x44, &[b'v'; 8192]));
        wire.send(&login(0x44, &[b'v'; 8192]));
        wire.send(&login(0x87, b"\0"));
    }),
    case("text that is not UTF-8", Refused(INITIATOR_ERROR), |wire| {
        wire.send(&login(0x87, &[names(&[]), b"X-\xff\xfe=1\0".to_vec()].concat()));
    }),
    case("a key given twice", Refused(INITIATOR_ERROR), |wire| {
        with_keys(wire, &["ImmediateData=Yes", "ImmediateData=No"]);
    }),
    case("more keys than there are", Refused(INITIATOR_ERROR), |wire| {
        let keys: Vec<String> = (0..65).map(|number| format!("X-{number}=1")).collect();
        with_keys(wire, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    }),
    case("segments of nothing", Refused(INITIATOR_ERROR), |wire| {
        with_keys(wire, &["MaxRecvDataSegmentLength=0"]);
    }),
    case("segments beyond 32 bits", Refused(INITIATOR_ERROR), |wire| {
        with_keys(wire, &["MaxRecvDataSegmentLength=4294967808"]);
    }),
    case("nobody's name", Refused(0x0207), |wire| wire.send(&login(0x87, b"SessionType=Normal\0"))),
    case("a name of 224 letters", Refused(0x0207), |wire| {
        let text = format!("InitiatorName=iqn.{}\0SessionType=Discovery\0", "a".repeat(220));
        wire.send(&login(0x87, text.as_bytes()));
    }),
    case("no target", Refused(0x0207), |wire| wire.send(&login(0x87, b"InitiatorName=iqn.a\0"))),
    case("another target", Refused(0x0203), |wire| {
        wire.send(&login(0x87, b"InitiatorName=iqn.a\0TargetName=iqn.b\0"));
    }),
    case("a kind of session there is not", Refused(0x0209), |wire| {
        wire.send(&login(0x87, b"InitiatorName=iqn.a\0SessionType=Strange\0"));
    }),
    case("an authentication there is not", Refused(0x0201), |wire| {
        wire.send(&login(0x81, &names(&["AuthMethod=KRB5,SRP"])));
    }),
    case("a challenge to the target", Refused(0x0201), |wire| {
        wire.send(&login(0x81, &names(&["CHAP_I=1", "CHAP_C=0x00"])));
    }),
    // RFC 7143 section 11.2.2: unknown additional header segments are passed over.
    case("a login with the longest additional headers", GoesOn(1), |wire| {
        send(wire, 0x87, |request| request.extra(255));
    }),
    case("a value that no key has", GoesOn(1), |wire| {
        with_keys(wire, &["MaxBurstLength=-1", "InitialR2T=Maybe", "HeaderDigest=,,,"]);
    }),
];

fn send(wire: &mut Wire, flags: u8, change: fn(Pdu) -> Pdu) {
    wire.send(&change(login(flags, &names(&[]))));
}

/// A good first request, and a second one that is changed.
fn second(wire: &mut Wire, change: fn(Pdu) -> Pdu) {
    wire.send(&login(0x04, &names(&[])));
    wire.send(&change(login(0x87, &[])));
}

fn with_keys(wire: &mut Wire, keys: &[&str]) {
    wire.send(&login(0x87, &names(keys)));
}
