//! Logins that try to get around CHAP (RFC 7143 section 12.1.3), where it is required.

use std::net::SocketAddr;

use md5::{Digest, Md5};

use super::Reaction::Refused;
use super::{Case, case};
use crate::wire::{ISID, Wire, login, names};

pub const USER: &str = "node";
pub const SECRET: &str = "sixteen letters!";

/// Authentication failed, and a fault of the initiator (RFC 7143 section 11.13.5).
const FAILED: u16 = 0x0201;
const INITIATOR_ERROR: u16 = 0x0200;

pub const CASES: &[Case] = &[
    case("straight to operational parameters", Refused(FAILED), |wire| wire.send(&login(0x87, &names(&[])))),
    case("out of the security stage without a method", Refused(FAILED), |wire| {
        wire.send(&login(0x81, &names(&[])));
    }),
    case("straight to full feature phase", Refused(FAILED), |wire| wire.send(&login(0x83, &names(&[])))),
    case("no authentication offered", Refused(FAILED), |wire| {
        wire.send(&login(0x81, &names(&["AuthMethod=None"])));
    }),
    case("a response before the algorithm", Refused(FAILED), |wire| {
        wire.send(&login(0x00, &names(&["AuthMethod=CHAP,None"])));
        wire.send(&login(0x81, b"CHAP_N=node\0CHAP_R=0x00\0"));
    }),
    case("an algorithm there is not", Refused(FAILED), |wire| {
        wire.send(&login(0x00, &names(&["AuthMethod=CHAP"])));
        wire.send(&login(0x00, b"CHAP_A=6,9\0"));
    }),
    case("the right secret of another user", Refused(FAILED), |wire| {
        let response = response(&challenge(wire), SECRET);
        wire.send(&login(0x81, format!("CHAP_N=nobody\0CHAP_R={response}\0").as_bytes()));
    }),
    case("the wrong secret", Refused(FAILED), |wire| {
        let response = response(&challenge(wire), "sixteen Letters!");
        wire.send(&login(0x81, format!("CHAP_N=node\0CHAP_R={response}\0").as_bytes()));
    }),
    case("a response with a byte too much", Refused(FAILED), |wire| {
        let response = response(&challenge(wire), SECRET);
        wire.send(&login(0x81, format!("CHAP_N=node\0CHAP_R={response}00\0").as_bytes()));
    }),
    case("an empty response", Refused(FAILED), |wire| answer(wire, "CHAP_N=node\0CHAP_R=0x\0")),
    case("a response of 2 KiB", Refused(FAILED), |wire| {
        answer(wire, &format!("CHAP_N=node\0CHAP_R=0x{}\0", "ab".repeat(2048)));
    }),
    case("a response that is no number", Refused(FAILED), |wire| answer(wire, "CHAP_N=node\0CHAP_R=0bABC\0")),
    case("a response without a user", Refused(FAILED), |wire| answer(wire, "CHAP_R=0x00\0")),
    case("an empty user", Refused(FAILED), |wire| answer(wire, "CHAP_N=\0CHAP_R=0x00\0")),
    case("nothing in answer to the challenge", Refused(FAILED), |wire| answer(wire, "")),
    case("a challenge in answer to the challenge", Refused(FAILED), |wire| {
        let response = response(&challenge(wire), SECRET);
        let text = format!("CHAP_N=node\0CHAP_R={response}\0CHAP_I=1\0CHAP_C=0x00\0");
        wire.send(&login(0x81, text.as_bytes()));
    }),
    // Both in one piece, so that the second comes before the first was verified.
    case("a request behind the response, without waiting", Refused(INITIATOR_ERROR), |wire| {
        let response = response(&challenge(wire), "sixteen Letters!");
        let text = format!("CHAP_N=node\0CHAP_R={response}\0");
        let first = login(0x81, text.as_bytes()).bytes(false, false);
        wire.raw(&[first, login(0x83, &[]).bytes(false, false)].concat());
    }),
    case("the method chosen twice", Refused(INITIATOR_ERROR), |wire| answer(wire, "AuthMethod=None\0")),
];

/// Goes on until the challenge and returns it.
fn challenge(wire: &mut Wire) -> String {
    challenge_as(ISID, wire)
}

fn challenge_as(isid: u8, wire: &mut Wire) -> String {
    wire.send(&login(0x00, &names(&["AuthMethod=CHAP"])).byte(13, isid));
    wire.answer().unwrap();
    wire.send(&login(0x00, b"CHAP_A=5\0").byte(13, isid));
    String::from_utf8(wire.answer().unwrap().data).unwrap()
}

fn answer(wire: &mut Wire, text: &str) {
    challenge(wire);
    wire.send(&login(0x81, text.as_bytes()));
}

/// RFC 1994: MD5 over identifier, secret and challenge.
fn response(text: &str, secret: &str) -> String {
    let find = |key: &str| text.split('\0').find_map(|pair| pair.strip_prefix(key)).unwrap();
    let digits = find("CHAP_C=0x");
    let challenge =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    let mut hash = Md5::new();
    hash.update([find("CHAP_I=").parse().unwrap()]);
    hash.update(secret);
    hash.update(challenge.collect::<Vec<u8>>());
    hash.finalize().iter().fold("0x".to_owned(), |all, byte| format!("{all}{byte:02x}"))
}

/// A session of the right user.
pub fn log_in_as(isid: u8, address: SocketAddr) -> Wire {
    let mut wire = Wire::connect(address);
    let response = response(&challenge_as(isid, &mut wire), SECRET);
    wire.send(&login(0x83, format!("CHAP_N={USER}\0CHAP_R={response}\0").as_bytes()).byte(13, isid));
    wire.begin(&[]);
    wire
}
