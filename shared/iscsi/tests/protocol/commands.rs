use bmi_iscsi::{CloseReason, Event, READ_PIECE};

use crate::pair::{Pair, ten};

#[test]
fn data_in_is_cut_to_the_initiator_and_ends_with_status() {
    let mut pair = Pair::ready(&["MaxRecvDataSegmentLength=1024", "MaxBurstLength=1536"]);
    pair.disk[..4096].iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8 ^ (at >> 8) as u8);
    let answers = pair.command(5, 0, &ten(0x28, 0, 8), 0x40, 4096, &[]);
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.data.len()).collect();
    assert_eq!(lengths, [1024, 512, 1024, 512, 1024], "segments of 1024, bursts of 1536");
    let flags: Vec<u8> = answers.iter().map(|answer| answer.header[1]).collect();
    assert_eq!(flags, [0, 0x80, 0, 0x80, 0x81]);
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!((answer.opcode(), answer.word(36)), (0x25, at as u32));
        assert_eq!(answer.word(28), pair.cmd_sn, "every PDU carries ExpCmdSN");
    }
    let data: Vec<u8> = answers.iter().flat_map(|answer| answer.data.clone()).collect();
    assert_eq!(data, pair.disk[..4096]);
}

#[test]
fn a_long_read_is_done_in_pieces_and_answered_as_one() {
    let mut pair = Pair::ready(&["MaxRecvDataSegmentLength=262144", "MaxBurstLength=786432"]);
    pair.disk.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 512) as u8 ^ (at >> 17) as u8);
    let before = pair.executed;
    let wanted = 4000 * 512_u32;
    let answers = pair.command(5, 0, &ten(0x28, 0, 4000), 0x40, wanted, &[]);
    assert_eq!(
        pair.executed - before,
        wanted.div_ceil(READ_PIECE) as usize,
        "no piece is larger than READ_PIECE"
    );
    let data: Vec<u8> = answers.iter().flat_map(|answer| answer.data.clone()).collect();
    assert!(data == pair.disk[..wanted as usize]);
    let (mut offset, mut in_burst) = (0, 0);
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!((answer.opcode(), answer.word(36), answer.word(40)), (0x25, at as u32, offset));
        offset += answer.data.len() as u32;
        in_burst += answer.data.len();
        assert!(in_burst <= 786_432, "a sequence is no longer than a burst, also across pieces");
        let last = at + 1 == answers.len();
        assert_eq!(answer.header[1] & 0x01, u8::from(last), "status in the last one only");
        if answer.header[1] & 0x80 != 0 {
            in_burst = 0;
        }
    }
    // Beyond the pieces, the window is as before: the command held one place all the time.
    let next = pair.command(6, 0, &ten(0x28, 0, 1), 0x40, 512, &[]);
    assert_eq!(next[0].word(32).wrapping_sub(next[0].word(28)), 127);
}

#[test]
fn what_is_sent_from_the_store_is_what_would_have_been_read() {
    // Blocks, the length the initiator expects, and what is sent at once.
    for (blocks, expected, cut) in
        [(4000, 4000 * 512, usize::MAX), (4000, 4000 * 512, 997), (8, 1001, 50), (1, 512, 1), (2, 4096, 7)]
    {
        let said = |stored| {
            let mut pair = Pair::ready(&["MaxRecvDataSegmentLength=65536", "MaxBurstLength=196608"]);
            pair.disk.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 512) as u8 ^ at as u8);
            (pair.stored, pair.cut) = (stored, cut);
            let answers = pair.command(5, 0, &ten(0x28, 3, blocks), 0x40, expected, &[]);
            answers.into_iter().map(|answer| (answer.header, answer.data)).collect::<Vec<_>>()
        };
        assert!(said(true) == said(false), "{blocks} blocks, {expected} bytes, {cut} at once");
    }
}

#[test]
fn a_long_read_that_is_aborted_between_pieces_says_nothing_more() {
    let mut pair = Pair::ready(&["MaxRecvDataSegmentLength=262144"]);
    pair.slow = true;
    pair.command(5, 0, &ten(0x28, 0, 4000), 0x40, 4000 * 512, &[]);
    pair.release();
    assert_eq!(pair.held.len(), 1, "the second piece is with the caller");
    pair.answers.clear();
    let mut header = pair.command_header(6, 0, &[], 0x80 | 1, 0);
    header[0] = 0x42;
    header[20..24].copy_from_slice(&5_u32.to_be_bytes());
    pair.cmd_sn = pair.cmd_sn.wrapping_sub(1);
    pair.send(&header, &[]);
    pair.release();
    assert_eq!(pair.answers.len(), 1);
    assert_eq!(pair.answers[0].opcode(), 0x22);
    assert!(pair.held.is_empty());
}

#[test]
fn residuals_tell_what_did_not_fit() {
    let mut pair = Pair::ready(&["InitialR2T=No", "ImmediateData=Yes"]);
    // (operation, blocks, flags, expected length, data sent) -> (flag, count)
    for (operation, blocks, flags, expected, sent, residual) in [
        (0x28, 1, 0x40, 1000, 0, (0x02, 488)),
        (0x28, 2, 0x40, 512, 0, (0x04, 512)),
        (0x28, 1, 0x00, 0, 0, (0x04, 512)),
        (0x2a, 1, 0x20, 1000, 1000, (0x02, 488)),
        (0x2a, 2, 0x20, 512, 512, (0x04, 512)),
        (0x2a, 1, 0x20, 0, 0, (0x04, 512)),
        (0x28, 1, 0x40, 512, 0, (0x00, 0)),
    ] {
        let answers = pair.command(5, 0, &ten(operation, 0, blocks), flags, expected, &vec![7; sent]);
        let last = answers.last().unwrap();
        assert_eq!(last.status(), 0);
        assert_eq!((last.header[1] & 0x06, last.word(44)), residual, "{operation:x} {blocks} {expected}");
    }
    assert!(pair.disk[..512].iter().all(|byte| *byte == 7));
    assert!(pair.disk[512..].iter().all(|byte| *byte == 0), "no block beyond what was promised");
    // Less than a block is refused, with the overflow told.
    let answers = pair.command(5, 0, &ten(0x2a, 3, 1), 0x20, 200, &[9; 200]);
    assert_eq!((answers[0].sense(), answers[0].header[1] & 6, answers[0].word(44)), ((5, 0x0e03), 4, 312));
}

#[test]
fn ranges_are_checked_without_overflow() {
    let mut pair = Pair::ready(&[]);
    for (block, blocks, fine) in
        [(4095, 1, true), (4096, 0, true), (4096, 1, false), (4097, 0, false), (u32::MAX, 1, false)]
    {
        let answers = pair.command(5, 0, &ten(0x28, block, blocks), 0x40, 512, &[]);
        assert_eq!(answers[0].status() == 0, fine, "{block} {blocks}");
        if !fine {
            assert_eq!(answers[0].sense(), (5, 0x2100));
        }
    }
    let mut cdb = [0xff; 16];
    cdb[0] = 0x88;
    cdb[1] = 0;
    assert_eq!(pair.command(5, 0, &cdb, 0x40, 512, &[])[0].sense(), (5, 0x2100));
}

#[test]
fn what_is_not_known_is_refused_in_the_right_way() {
    let mut pair = Pair::ready(&[]);
    assert_eq!(pair.command(5, 0, &[0x83; 16], 0, 0, &[])[0].sense(), (5, 0x2000));
    assert_eq!(pair.command(5, 7, &[0; 6], 0, 0, &[])[0].sense(), (5, 0x2500));
    assert_eq!(pair.command(5, 1, &ten(0x2a, 0, 1), 0x20, 512, &[])[0].sense(), (7, 0x2700));
    assert_eq!(pair.command(5, 0, &[0x1a, 0, 0xff, 0, 255, 0], 0x40, 255, &[])[0].sense(), (5, 0x3900));
    let inquiry = pair.command(5, 7, &[0x12, 0, 0, 0, 96, 0], 0x40, 96, &[]);
    assert_eq!(inquiry[0].data[0], 0x7f);
    let luns = pair.command(5, 7, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0x40, 256, &[]);
    assert_eq!((luns[0].data.len(), luns[0].data[3], luns[0].data[17]), (24, 16, 1));
}

#[test]
fn a_unit_attention_is_reported_once_and_not_by_inquiry() {
    let mut pair = Pair::new(crate::pair::config());
    pair.log_in(&[]);
    assert_eq!(pair.command(1, 0, &[0x12, 0, 0, 0, 36, 0], 0x40, 36, &[])[0].opcode(), 0x25);
    assert_eq!(pair.command(1, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2900));
    assert_eq!(pair.command(1, 0, &[0; 6], 0, 0, &[])[0].status(), 0);
    // REQUEST SENSE takes it as data.
    let sense = pair.command(1, 1, &[0x03, 0, 0, 0, 18, 0], 0x40, 18, &[]);
    assert_eq!((sense[0].data[2], sense[0].data[12]), (6, 0x29));
    assert_eq!(pair.command(1, 1, &[0; 6], 0, 0, &[])[0].status(), 0);
}

#[test]
fn commands_outside_the_window_are_ignored_and_a_gap_ends_it() {
    let mut pair = Pair::ready(&[]);
    let inside = pair.cmd_sn;
    for outside in [inside + 200, inside.wrapping_sub(1)] {
        pair.cmd_sn = outside;
        assert!(pair.command(5, 0, &[0; 6], 0, 0, &[]).is_empty());
    }
    pair.cmd_sn = inside;
    assert_eq!(pair.command(5, 0, &[0; 6], 0, 0, &[])[0].status(), 0);
    pair.cmd_sn += 1;
    pair.command(5, 0, &[0; 6], 0, 0, &[]);
    assert!(pair.closed_for_protocol());
}

#[test]
fn the_window_closes_at_its_size_and_opens_again() {
    let mut pair = Pair::ready(&[]);
    pair.slow = true;
    for itt in 0..200 {
        let header = pair.command_header(itt, 0, &ten(0x28, 0, 1), 0xc0, 512);
        pair.send(&header, &[]);
    }
    assert_eq!(pair.held.len(), 128);
    let before = pair.cmd_sn - 200 + 128;
    pair.release();
    let answers: Vec<_> = pair.answers.drain(..).collect();
    assert_eq!(answers.len(), 128);
    let windows: Vec<u32> = answers.iter().map(|answer| answer.word(32)).collect();
    assert!(windows.is_sorted(), "MaxCmdSN never goes back");
    assert_eq!(*windows.last().unwrap(), before + 127);
}

#[test]
fn pings_are_answered_both_ways() {
    let mut pair = Pair::ready(&[]);
    let mut ping = [0; 48];
    ping[0] = 0x40;
    ping[1] = 0x80;
    ping[19] = 3;
    ping[20..24].fill(0xff);
    pair.send(&ping, b"hello");
    let answer = pair.answers.pop_front().unwrap();
    assert_eq!((answer.opcode(), answer.data.as_slice(), answer.word(16)), (0x20, &b"hello"[..], 3));

    pair.target.ping();
    pair.drive();
    let ours = pair.answers.pop_front().unwrap();
    assert_eq!((ours.opcode(), ours.word(16)), (0x20, u32::MAX));
    assert_ne!(ours.word(20), u32::MAX);
    assert!(pair.others.is_empty());
    ping[16..20].fill(0xff);
    pair.send(&ping, b"");
    assert!(pair.answers.is_empty(), "an answer is not answered");
    assert_eq!(pair.others, [Event::Alive]);
}

#[test]
fn logout_is_answered_after_the_commands_before_it() {
    let mut pair = Pair::ready(&[]);
    pair.slow = true;
    pair.command(5, 0, &ten(0x28, 0, 1), 0x40, 512, &[]);
    let mut logout = [0; 48];
    logout[0] = 0x46;
    logout[1] = 0x80;
    logout[19] = 6;
    pair.send(&logout, b"");
    assert!(pair.answers.is_empty());
    // A second one beside it is refused; the first is answered all the same.
    logout[19] = 7;
    pair.send(&logout, b"");
    let refused = pair.answers.pop_front().unwrap();
    assert_eq!((refused.opcode(), refused.header[2]), (0x3f, 0x04));
    pair.release();
    assert_eq!(pair.answers[1].word(16), 6);
    let opcodes: Vec<u8> = pair.answers.iter().map(crate::pair::Answer::opcode).collect();
    assert_eq!(opcodes, [0x25, 0x26]);
    assert_eq!(pair.target.closing(), Some(CloseReason::Logout));
}

#[test]
fn the_wrong_byte_of_a_command_is_pointed_to() {
    let mut pair = Pair::ready(&[]);
    for (cdb, byte) in [
        (&[0x12, 0, 0x80, 0, 64, 0][..], 2),
        (&[0x12, 2, 0, 0, 64, 0], 1),
        (&[0x12, 1, 0x99, 0, 64, 0], 2),
        (&[0x1a, 0, 0x08, 1, 64, 0], 3),
        (&[0x1a, 0, 0x05, 0, 64, 0], 2),
        (&[0x16, 1, 0, 0, 0, 0], 1),
        (&[0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0], 2),
        (&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 1),
        (&[0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0], 7),
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 10),
        (&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 6),
        (&[0xa0, 0, 9, 0, 0, 0, 0, 0, 0, 64, 0, 0], 2),
        // A service action is asked for where there are none.
        (&[0xa3, 0x0c, 2, 0x28, 0, 0, 0, 0, 0, 64, 0, 0], 2),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0], 13),
        (&[0x5e, 9, 0, 0, 0, 0, 0, 0, 64, 0], 1),
        (&[0x5f, 1, 0x1f, 0, 0, 0, 0, 0, 24, 0], 2),
    ] {
        let answer = pair.command(5, 0, cdb, 0x40, 64, &[]).remove(0);
        assert_eq!((answer.sense(), answer.field()), ((5, 0x2400), (0xc0, byte)), "{cdb:x?}");
    }
    // Where nothing is pointed to, the bytes are zeros.
    assert_eq!(pair.command(5, 0, &ten(0x28, u32::MAX, 1), 0x40, 512, &[])[0].field(), (0, 0));
}
