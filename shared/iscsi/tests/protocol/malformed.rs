//! PDUs that no initiator sends. The connection answers, ignores or ends; nothing is executed.

use crate::pair::{Pair, config, ten};

#[test]
fn before_login_anything_but_a_login_ends_the_connection_without_a_word() {
    for opcode in (0..=0x3f).filter(|opcode| *opcode != 0x03) {
        let mut pair = Pair::new(config());
        let mut header = [0; 48];
        header[0] = opcode;
        pair.raw(&header);
        assert!(pair.closed_for_protocol(), "{opcode:x}");
        assert!(pair.answers.is_empty());
    }
}

#[test]
fn long_segments_end_the_connection_at_their_header() {
    let mut pair = Pair::new(config());
    let mut header = pair.login_header(0x87);
    header[5..8].copy_from_slice(&[0, 0x20, 1]);
    pair.raw(&header);
    assert!(pair.closed_for_protocol(), "8193 bytes in login");

    let mut pair = Pair::ready(&[]);
    let mut header = [0; 48];
    header[5..8].copy_from_slice(&[4, 0, 1]);
    pair.raw(&header);
    assert!(pair.closed_for_protocol(), "256 KiB and one byte");
}

#[test]
fn broken_login_text_is_refused() {
    for text in [
        &b"InitiatorName=iqn.x"[..],
        b"no pair\0",
        b"=value\0",
        b"\xff\xfe=\x00",
        b"InitiatorName=\0",
        b"InitialR2T=No\0InitialR2T=No\0InitiatorName=iqn.2026-01.example:node\0SessionType=Discovery\0",
        b"InitiatorName=iqn.2026-01.example:node\0SessionType=Discovery\0MaxRecvDataSegmentLength=0\0",
    ] {
        let mut pair = Pair::new(config());
        let header = pair.login_header(0x87);
        pair.send(&header, text);
        assert_eq!(pair.refused.len(), 1, "{text:?}");
        assert!(!pair.target.established());
    }
}

#[test]
fn requests_that_do_not_belong_to_the_login_end_it() {
    let change: [fn(&mut [u8; 48]); 4] = [
        |header| header[19] ^= 1,
        |header| header[13] ^= 1,
        |header| header[15] ^= 1,
        |header| header[1] = 0x81,
    ];
    for change in change {
        let mut pair = Pair::new(config());
        pair.login(0x04, &["InitiatorName=iqn.2026-01.example:node", "SessionType=Discovery"]);
        let mut header = pair.login_header(0x87);
        change(&mut header);
        pair.send(&header, b"");
        assert_eq!(pair.refused.len(), 1);
    }
}

#[test]
fn opcodes_no_target_takes_are_rejected_with_their_header() {
    for opcode in [0x10_u8, 0x1c, 0x1e, 0x20, 0x23, 0x25, 0x2f, 0x31, 0x3f] {
        let mut pair = Pair::ready(&[]);
        let mut header = [0; 48];
        header[0] = opcode;
        header[47] = 0xab;
        pair.raw(&header);
        let answer = pair.answers.pop_front().unwrap();
        assert_eq!((answer.opcode(), answer.header[2]), (0x3f, 5));
        assert_eq!(answer.data, header);
    }
}

#[test]
fn tags_must_be_free_and_real() {
    let mut pair = Pair::ready(&[]);
    assert_eq!(pair.command(u32::MAX, 0, &[0; 6], 0, 0, &[])[0].opcode(), 0x3f);
    pair.slow = true;
    pair.command(5, 0, &ten(0x28, 0, 1), 0x40, 512, &[]);
    let again = pair.command(5, 0, &ten(0x28, 0, 1), 0x40, 512, &[]);
    assert_eq!((again[0].opcode(), again[0].header[2]), (0x3f, 7));
    assert_eq!(pair.held.len(), 1);
}

#[test]
fn immediate_commands_have_a_bound_too() {
    let mut pair = Pair::ready(&[]);
    pair.slow = true;
    for itt in 0..300 {
        let mut header = pair.command_header(itt, 0, &ten(0x28, 0, 1), 0xc0, 512);
        header[0] |= 0x40;
        pair.send(&header, &[]);
    }
    assert_eq!(pair.held.len(), 136);
    assert!(pair.answers.iter().all(|answer| answer.opcode() == 0x3f && answer.header[2] == 6));
}

#[test]
fn a_second_login_and_data_for_nothing_are_harmless() {
    let mut pair = Pair::ready(&[]);
    pair.data_out(1234, 1, 0, 0, true, &[1; 512]);
    assert!(pair.answers.is_empty());
    let header = pair.login_header(0x87);
    pair.send(&header, b"");
    assert!(pair.closed_for_protocol());
}

#[test]
fn strange_commands_are_answered() {
    let mut pair = Pair::ready(&[]);
    // A LUN of a form there is not, and additional header segments.
    let mut header = pair.command_header(5, 0, &[0; 6], 0x80, 0);
    header[8] = 0xc1;
    pair.send(&header, &[]);
    assert_eq!(pair.answers.pop_front().unwrap().sense(), (5, 0x2500));
    let mut header = pair.command_header(5, 0, &[0; 6], 0x80, 0);
    header[4] = 2;
    let mut pdu = header.to_vec();
    pdu.extend_from_slice(&[0xee; 8]);
    pair.raw(&pdu);
    assert_eq!(pair.answers.pop_front().unwrap().status(), 0);
}
