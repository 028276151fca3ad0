//! PDUs that break the rules of full feature phase (RFC 7143 sections 4.2, 11).

use super::Reaction::{Answered, Check, Closed, Ignored, Rejected};
use super::{Case, case};
use crate::wire::{NO_TAG, Pdu, Wire, login, names, pdu, ten};

/// Reasons of a Reject (RFC 7143 section 11.17.1).
const PROTOCOL_ERROR: u8 = 4;
const NOT_SUPPORTED: u8 = 5;
const IN_PROGRESS: u8 = 7;

/// DATA PHASE ERROR.
const DATA_PHASE: u16 = 0x4b00;

/// LOGICAL UNIT NOT SUPPORTED.
const NO_UNIT: u16 = 0x2500;

/// Opcodes of answers.
const NOP_IN: u8 = 0x20;
const RESPONSE: u8 = 0x21;
const TASK_MANAGEMENT: u8 = 0x22;
const DATA_IN: u8 = 0x25;
const LOGOUT: u8 = 0x26;
const R2T: u8 = 0x31;

/// With the parameters that hold when nothing is negotiated: InitialR2T and ImmediateData are Yes.
pub const CASES: &[Case] = &[
    case("data for nothing", Ignored, |wire| {
        wire.send(&pdu(0x05, 0x80).word(16, 1234).word(20, 1).data(&[1; 512]));
    }),
    case("256 KiB of data for nothing", Ignored, |wire| {
        wire.send(&pdu(0x05, 0x80).word(16, 1234).word(20, 1).data(&vec![1; 262_144]));
    }),
    case("data with another transfer tag", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.word(20, 0xdead).data(&[1; 4096]));
    }),
    case("data that nobody asked for, instead", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.word(20, NO_TAG).data(&[1; 4096]));
    }),
    case("data with another DataSN", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.word(36, 1).data(&[1; 4096]));
    }),
    case("data for another place", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.word(40, 512).data(&[1; 3584]));
    }),
    case("data for a place beyond all", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.word(40, u32::MAX - 15).data(&[1; 4096]));
    }),
    case("data that end early", Check(DATA_PHASE), |wire| burst(wire, |data| data.data(&[1; 2048]))),
    case("data without an end", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.byte(1, 0).data(&[1; 4096]));
    }),
    case("more data than were asked for", Check(DATA_PHASE), |wire| {
        burst(wire, |data| data.data(&[1; 8192]));
    }),
    case("a thousand times no data", Ignored, |wire| {
        let ttt = asked(wire);
        for number in 0..1000 {
            wire.send(&pdu(0x05, 0).word(16, 5).word(20, ttt).word(36, number));
        }
    }),
    case("a segment with one byte more than was declared", Closed, |wire| {
        wire.send(&pdu(0x40, 0x80).word(16, 5).length(262_145));
    }),
    case("a segment of 16 MiB", Closed, |wire| {
        wire.send(&pdu(0x05, 0x80).word(16, 5).length(0x00ff_ffff));
    }),
    case("opcode 1c", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x1c, 0x80))),
    case("opcode 2f", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x2f, 0x80))),
    case("opcode 25, a target's", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x25, 0x80))),
    case("opcode 11", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x11, 0x80))),
    case("opcode 12", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x12, 0x80))),
    case("opcode 3f, a target's", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x3f, 0x80))),
    case("opcode 23, a target's", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x23, 0x80))),
    case("a SNACK", Rejected(NOT_SUPPORTED), |wire| wire.send(&pdu(0x10, 0x80))),
    case("a second login", Closed, |wire| wire.send(&login(0x87, &names(&[])))),
    case("a command below the window", Ignored, |wire| {
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, 512).word(24, 0);
        wire.send(&read);
    }),
    case("a command above the window", Ignored, |wire| {
        let above = wire.cmd_sn + 128;
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, 512).word(24, above);
        wire.send(&read);
    }),
    case("a gap between commands", Closed, |wire| {
        wire.cmd_sn += 1;
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, 512);
        wire.send(&read);
    }),
    case("a tag that is in use", Rejected(IN_PROGRESS), |wire| {
        asked(wire);
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, 512);
        wire.send(&read);
    }),
    case("a command without a tag", Rejected(PROTOCOL_ERROR), |wire| {
        let read = wire.command(NO_TAG, &ten(0x28, 0, 1), 0xc0, 512);
        wire.send(&read);
    }),
    case("unsolicited data where an R2T comes first", Closed, |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0x20, 512);
        wire.send(&write);
    }),
    case("data with a command that reads", Closed, |wire| {
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, 512).data(&[1; 512]);
        wire.send(&read);
    }),
    case("more immediate data than the command has", Closed, |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0xa0, 512).data(&[1; 1024]);
        wire.send(&write);
    }),
    case("more immediate data than FirstBurstLength", Closed, |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 512), 0xa0, 262_144).data(&vec![1; 131_072]);
        wire.send(&write);
    }),
    case("a write that expects four billion bytes", Answered(R2T, 0), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0xa0, u32::MAX);
        wire.send(&write);
    }),
    case("a read that expects four billion bytes", Answered(DATA_IN, 0), |wire| {
        let read = wire.command(5, &ten(0x28, 0, 1), 0xc0, u32::MAX);
        wire.send(&read);
    }),
    case("a write that expects nothing", Answered(RESPONSE, 0), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0x80, 0);
        wire.send(&write);
    }),
    case("a write longer than the limit", Check(0x2400), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 17_000), 0xa0, 17_000 * 512);
        wire.send(&write);
    }),
    case("a read beyond the end", Check(0x2100), |wire| {
        let read = wire.command(5, &ten(0x28, u32::MAX, u16::MAX), 0xc0, 512);
        wire.send(&read);
    }),
    case("an operation there is not", Check(0x2000), |wire| {
        let strange = wire.command(5, &[0xff; 16], 0x80, 0);
        wire.send(&strange);
    }),
    case("a unit addressed in a form there is not", Check(NO_UNIT), |wire| {
        let ready = wire.command(5, &[0; 6], 0x80, 0).byte(8, 0xc1);
        wire.send(&ready);
    }),
    case("a unit below a unit", Check(NO_UNIT), |wire| {
        let ready = wire.command(5, &[0; 6], 0x80, 0).byte(10, 1);
        wire.send(&ready);
    }),
    case("a unit in flat addressing that is not there", Check(NO_UNIT), |wire| {
        let ready = wire.command(5, &[0; 6], 0x80, 0).byte(8, 0x7f).byte(9, 0xff);
        wire.send(&ready);
    }),
    case("a command with the longest additional headers", Answered(RESPONSE, 0), |wire| {
        let ready = wire.command(5, &[0; 6], 0x80, 0).extra(255);
        wire.send(&ready);
    }),
    case("task management 0", Answered(TASK_MANAGEMENT, 255), |wire| wire.send(&pdu(0x42, 0x80).word(16, 6))),
    case("task management 127", Answered(TASK_MANAGEMENT, 255), |wire| {
        wire.send(&pdu(0x42, 0xff).word(16, 6));
    }),
    case("task management for a unit there is not", Answered(TASK_MANAGEMENT, 2), |wire| {
        wire.send(&pdu(0x42, 0x82).word(16, 6).byte(9, 77));
    }),
    case("an abort of nothing", Answered(TASK_MANAGEMENT, 1), |wire| {
        wire.send(&pdu(0x42, 0x81).word(16, 6).word(20, 1234));
    }),
    case("a task to reassign", Answered(TASK_MANAGEMENT, 4), |wire| wire.send(&pdu(0x42, 0x88).word(16, 6))),
    case("text with C and F", Rejected(PROTOCOL_ERROR), |wire| text(wire, 0xc0, b"SendTargets=\0")),
    case("text with C that is empty", Rejected(PROTOCOL_ERROR), |wire| text(wire, 0x40, b"")),
    case("text without a NUL", Rejected(PROTOCOL_ERROR), |wire| text(wire, 0x80, b"SendTargets=")),
    case("text without an end", Rejected(PROTOCOL_ERROR), |wire| {
        text(wire, 0x40, &[b'k'; 8192]);
        // 64 KiB are taken, a segment more is not.
        for _ in 0..8 {
            wire.send(&pdu(0x44, 0x40).word(16, 6).word(20, 1).data(&[b'k'; 8192]));
        }
    }),
    case("a text segment of 256 KiB", Rejected(PROTOCOL_ERROR), |wire| {
        text(wire, 0x80, &vec![b'k'; 262_144]);
    }),
    case("segments of nothing from now on", Rejected(PROTOCOL_ERROR), |wire| {
        text(wire, 0x80, b"MaxRecvDataSegmentLength=0\0");
    }),
    case("a ping of 256 KiB", Answered(NOP_IN, 0), |wire| {
        wire.send(&pdu(0x40, 0x80).word(16, 6).word(20, NO_TAG).data(&vec![9; 262_144]));
    }),
    case("a logout for a reason there is not", Answered(LOGOUT, 2), |wire| {
        wire.send(&pdu(0x46, 0x87).word(16, 6));
    }),
];

pub const NO_IMMEDIATE_DATA: &[Case] = &[case("immediate data against the agreement", Closed, |wire| {
    let write = wire.command(5, &ten(0x2a, 0, 1), 0xa0, 512).data(&[1; 512]);
    wire.send(&write);
})];

pub const UNSOLICITED: &[Case] = &[
    case("unsolicited data beyond FirstBurstLength", Check(DATA_PHASE), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 512), 0x20, 262_144);
        wire.send(&write);
        wire.send(&pdu(0x05, 0x80).word(16, 5).word(20, NO_TAG).data(&vec![1; 131_072]));
    }),
    case("unsolicited data beyond the command", Check(DATA_PHASE), |wire| {
        let write = wire.command(5, &ten(0x2a, 0, 1), 0x20, 512);
        wire.send(&write);
        wire.send(&pdu(0x05, 0x80).word(16, 5).word(20, NO_TAG).data(&[1; 1024]));
    }),
    case("unsolicited data of a failed command", Check(0x2100), |wire| {
        let write = wire.command(5, &ten(0x2a, u32::MAX, 1), 0x20, 512);
        wire.send(&write);
        wire.send(&pdu(0x05, 0x80).word(16, 5).word(20, NO_TAG).data(&[1; 512]));
    }),
];

/// Begins a write of 4096 bytes and returns the transfer tag of its R2T.
fn asked(wire: &mut Wire) -> u32 {
    let write = wire.command(5, &ten(0x2a, 0, 8), 0xa0, 4096);
    wire.send(&write);
    let r2t = wire.answer().unwrap();
    assert_eq!((r2t.header[0], r2t.word(44)), (R2T, 4096));
    r2t.word(20)
}

/// Answers an R2T with a Data-Out that is right except for the change, and once more: that must be swallowed.
fn burst(wire: &mut Wire, change: fn(Pdu) -> Pdu) {
    let ttt = asked(wire);
    let data = change(pdu(0x05, 0x80).word(16, 5).word(20, ttt));
    wire.send(&data);
    wire.send(&data);
}

fn text(wire: &mut Wire, flags: u8, text: &[u8]) {
    wire.send(&pdu(0x44, flags).word(16, 6).word(20, NO_TAG).data(text));
}
