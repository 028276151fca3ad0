//! Streams that are not iSCSI, lengths that are lies, and digests that are wrong.

use super::Reaction::{Check, Closed, RejectedAndClosed};
use super::{Case, case};
use crate::wire::{Wire, login, names, pdu, ten};

/// Before anybody has logged in.
pub const CASES: &[Case] = &[
    case("an HTTP request", Closed, |wire| {
        wire.raw(b"GET / HTTP/1.1\r\nHost: example\r\nUser-Agent: nobody\r\n\r\n");
    }),
    case("the beginning of TLS", Closed, |wire| {
        wire.raw(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 500]].concat());
    }),
    case("nothing but ones", Closed, |wire| wire.raw(&[0xff; 48])),
    case("nothing but zeros", Closed, |wire| wire.raw(&[0; 48])),
    case("a megabyte of zeros", Closed, |wire| wire.raw(&vec![0; 1 << 20])),
    case("a ping before login", Closed, |wire| wire.send(&pdu(0x40, 0x80))),
    case("a command before login", Closed, |wire| {
        let read = wire.command(1, &ten(0x28, 0, 1), 0xc0, 512);
        wire.send(&read);
    }),
    case("a logout before login", Closed, |wire| wire.send(&pdu(0x46, 0x80))),
    case("a login that claims 16 MiB of text", Closed, |wire| {
        wire.send(&login(0x87, &[]).length(0x00ff_ffff));
    }),
    // RFC 7143 section 13.12: 8192 bytes until something else was declared.
    case("a login with one byte more than 8192", Closed, |wire| {
        wire.send(&login(0x87, &names(&[])).length(8193));
    }),
    case("a command between two login requests", Closed, |wire| {
        wire.send(&login(0x04, &names(&[])));
        assert_eq!(wire.answer().unwrap().login_status(), 0);
        let read = wire.command(1, &ten(0x28, 0, 1), 0xc0, 512);
        wire.send(&read);
    }),
    case("a command behind the last login request, without waiting", Closed, |wire| {
        let read = wire.command(1, &ten(0x28, 0, 1), 0xc0, 512);
        let both = [login(0x87, &names(&[])).bytes(false, false), read.bytes(false, false)].concat();
        wire.raw(&both);
    }),
];

/// In a session with both digests (RFC 7143 section 7.8).
pub const DIGESTS: &[Case] = &[
    case("a ping whose header digest is wrong", Closed, |wire| {
        let mut bytes = pdu(0x40, 0x80).word(16, 5).bytes(true, true);
        bytes[50] ^= 1;
        wire.raw(&bytes);
    }),
    case("a ping without digests", Closed, |wire| {
        let bytes = pdu(0x40, 0x80).word(16, 5).bytes(false, false);
        wire.raw(&[bytes, vec![0; 4]].concat());
    }),
    case("a length that lies behind a right header digest", Closed, |wire| {
        wire.send(&pdu(0x40, 0x80).word(16, 5).length(0x00ff_ffff));
    }),
    case("a command whose data digest is wrong", RejectedAndClosed(2), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0xa0, 512).data(&[7; 512]);
        spoiled(wire, write.bytes(true, true));
    }),
    case("a long command whose data digest is wrong", RejectedAndClosed(2), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 16), 0xa0, 8192).data(&[7; 8192]);
        spoiled(wire, write.bytes(true, true));
    }),
    case("a Data-Out whose data digest is wrong", Check(0x4705), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0xa0, 512);
        wire.send(&write);
        let r2t = wire.answer().unwrap();
        let data = pdu(0x05, 0x80).word(16, 5).word(20, r2t.word(20)).data(&[7; 512]);
        spoiled(wire, data.bytes(true, true));
    }),
    case("a ping whose data digest is wrong", RejectedAndClosed(2), |wire| {
        spoiled(wire, pdu(0x40, 0x80).word(16, 5).data(b"ping").bytes(true, true));
    }),
];

/// Sends it with its last bit turned over.
fn spoiled(wire: &mut Wire, mut bytes: Vec<u8>) {
    *bytes.last_mut().unwrap() ^= 0x80;
    wire.raw(&bytes);
}
