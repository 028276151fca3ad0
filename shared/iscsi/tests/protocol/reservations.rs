//! RESERVE (6) and persistent reservations, between three nexuses.

use bmi_iscsi::{Event, Isid};

use crate::pair::{Answer, INITIATOR, Pair, ten};

const CONFLICT: u8 = 0x18;

/// PERSISTENT RESERVE OUT (SPC-4 section 6.16).
fn out(pair: &mut Pair, action: u8, kind: u8, key: u64, other: u64) -> Answer {
    let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&other.to_be_bytes());
    pair.command(5, 0, &cdb, 0x20, 24, &list).remove(0)
}

/// PERSISTENT RESERVE IN (SPC-4 section 6.15).
fn read(pair: &mut Pair, action: u8) -> Vec<u8> {
    pair.command(5, 0, &[0x5e, action, 0, 0, 0, 0, 0, 1, 0, 0], 0x40, 256, &[]).remove(0).data
}

fn reads(pair: &mut Pair) -> u8 {
    let answer = pair.command(5, 0, &ten(0x28, 0, 1), 0x40, 512, &[]).remove(0);
    // GOOD comes with the data.
    if answer.opcode() == 0x25 { 0 } else { answer.status() }
}

fn writes(pair: &mut Pair) -> u8 {
    pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512])[0].status()
}

fn registered(pair: &mut Pair, key: u64) {
    assert_eq!(out(pair, 0, 0, 0, key).status(), 0);
}

#[test]
fn each_type_admits_whom_it_says() {
    const NO: u8 = CONFLICT;
    // Type; a registrant reads and writes; a stranger reads and writes (SPC-4 tables 66 and 67).
    for (kind, registrant, stranger) in [
        (1, (0, NO), (0, NO)),
        (3, (NO, NO), (NO, NO)),
        (5, (0, 0), (0, NO)),
        (6, (0, 0), (NO, NO)),
        (7, (0, 0), (0, NO)),
        (8, (0, 0), (NO, NO)),
    ] {
        let mut holder = Pair::ready(&[]);
        let (mut other, mut third) = (holder.beside(2), holder.beside(3));
        registered(&mut holder, 1);
        registered(&mut other, 2);
        assert_eq!(out(&mut holder, 1, kind, 1, 0).status(), 0);
        assert_eq!((reads(&mut holder), writes(&mut holder)), (0, 0), "type {kind}");
        assert_eq!((reads(&mut other), writes(&mut other)), registrant, "type {kind}");
        assert_eq!((reads(&mut third), writes(&mut third)), stranger, "type {kind}");
        // What tells what the unit is passes for all.
        for cdb in [&[0_u8; 6][..], &[0x12, 0, 0, 0, 36, 0], &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(third.command(5, 0, cdb, 0x40, 64, &[])[0].status(), 0);
        }
        // Another type is a conflict even for the holder, the same is not.
        assert_eq!(out(&mut holder, 1, kind, 1, 0).status(), 0);
        assert_eq!(out(&mut holder, 1, if kind == 1 { 3 } else { 1 }, 1, 0).status(), CONFLICT);
        let reservation = read(&mut third, 1);
        let key = if kind >= 7 { 0 } else { 1 };
        assert_eq!((reservation[7], reservation[15], reservation[21]), (16, key, kind));
        // The other unit is not concerned.
        assert_eq!(third.command(5, 1, &ten(0x28, 0, 1), 0x40, 512, &[])[0].opcode(), 0x25);
    }
}

#[test]
fn each_command_of_a_stranger_meets_a_reservation_as_the_tables_say() {
    // SPC-4 table 66, SBC-3 table 13: beside write exclusive, beside exclusive access.
    const NO: u8 = CONFLICT;
    let of = |bytes: &[(usize, u8)]| {
        let mut cdb = [0; 16];
        bytes.iter().for_each(|(at, byte)| cdb[*at] = *byte);
        cdb
    };
    for (cdb, write_exclusive, exclusive_access) in [
        (of(&[(0, 0x00)]), 0, 0),
        (of(&[(0, 0x12), (4, 36)]), 0, 0),
        (of(&[(0, 0x25)]), 0, 0),
        (of(&[(0, 0x9e), (1, 0x10), (13, 32)]), 0, 0),
        (of(&[(0, 0x5e), (8, 64)]), 0, 0),
        (of(&[(0, 0xa0), (9, 64)]), 0, 0),
        (of(&[(0, 0x1a), (2, 0x3f), (4, 255)]), 0, NO),
        (of(&[(0, 0x9e), (1, 0x12), (13, 24)]), 0, NO),
        (of(&[(0, 0xa3), (1, 0x0c), (9, 64)]), 0, NO),
        (of(&[(0, 0x28), (8, 1)]), 0, NO),
        (of(&[(0, 0x2f), (8, 1)]), 0, NO),
        (of(&[(0, 0x34), (8, 1)]), 0, NO),
        (of(&[(0, 0x1b), (4, 1)]), 0, 0),
        (of(&[(0, 0x1b), (4, 0)]), NO, NO),
        (of(&[(0, 0x1b), (4, 0x11)]), NO, NO),
        (of(&[(0, 0x1e), (4, 0)]), 0, 0),
        (of(&[(0, 0x1e), (4, 1)]), NO, NO),
        (of(&[(0, 0x35)]), NO, NO),
        (of(&[(0, 0x42)]), NO, NO),
    ] {
        for (kind, expected) in
            [(1, write_exclusive), (5, write_exclusive), (3, exclusive_access), (6, exclusive_access)]
        {
            let mut holder = Pair::ready(&[]);
            let mut other = holder.beside(2);
            registered(&mut holder, 1);
            assert_eq!(out(&mut holder, 1, kind, 1, 0).status(), 0);
            let answer = other.command(5, 0, &cdb, 0x40, 512, &[]).remove(0);
            let status = if answer.opcode() == 0x25 { 0 } else { answer.status() };
            assert_eq!(status, expected, "type {kind}: {cdb:x?}");
        }
    }
}

#[test]
fn registrations_need_the_right_key_and_survive_their_session() {
    let mut one = Pair::ready(&[]);
    assert_eq!(out(&mut one, 0, 0, 9, 1).status(), CONFLICT, "a key without being registered");
    registered(&mut one, 1);
    assert_eq!(out(&mut one, 0, 0, 9, 2).status(), CONFLICT, "the wrong key");
    assert_eq!(out(&mut one, 0, 0, 1, 2).status(), 0);
    assert_eq!(out(&mut one, 6, 0, 9, 3).status(), 0, "whatever key there is");
    assert_eq!(out(&mut one, 1, 1, 2, 0).status(), CONFLICT);
    assert_eq!(out(&mut one, 1, 1, 3, 0).status(), 0);
    let mut other = one.beside(2);
    drop(one);
    assert_eq!(writes(&mut other), CONFLICT, "it is reserved while its holder is away");
    let full = read(&mut other, 3);
    assert_eq!((full[15], full[20], full[21]), (3, 1, 1));
    let name = format!("{INITIATOR},i,0x00023d000001\0");
    let at = 8 + 24 + 4;
    assert_eq!(full[at..at + name.len()], *name.as_bytes());
    assert_eq!(read(&mut other, 0)[..8], [0, 0, 0, 3, 0, 0, 0, 8], "generation, and one key");
}

#[test]
fn what_is_released_or_cleared_is_told_to_those_who_rested_on_it() {
    for (kind, told) in [(1, false), (3, false), (5, true), (6, true), (7, true), (8, true)] {
        let mut holder = Pair::ready(&[]);
        let mut other = holder.beside(2);
        registered(&mut holder, 1);
        registered(&mut other, 2);
        assert_eq!(out(&mut holder, 1, kind, 1, 0).status(), 0);
        let wrong = if kind == 1 { 3 } else { 1 };
        assert_eq!(out(&mut holder, 2, wrong, 1, 0).sense(), (5, 0x2604));
        assert_eq!(out(&mut holder, 2, kind, 1, 0).status(), 0);
        let answer = other.command(5, 0, &[0; 6], 0, 0, &[]).remove(0);
        if told {
            assert_eq!(answer.sense(), (6, 0x2a04), "type {kind}");
        } else {
            assert_eq!(answer.status(), 0, "type {kind}");
        }
        assert_eq!(out(&mut holder, 3, 0, 1, 0).status(), 0);
        assert_eq!(other.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2a03));
        assert_eq!(read(&mut other, 0).len(), 8, "nobody is registered");
    }
}

#[test]
fn preempting_takes_the_reservation_and_ends_what_was_under_way() {
    for abort in [false, true] {
        let mut holder = Pair::ready(&[]);
        let (mut other, mut third) = (holder.beside(2), holder.beside(3));
        registered(&mut holder, 1);
        registered(&mut other, 2);
        // It is told that the type is another one, and loses no task by it.
        registered(&mut third, 3);
        assert_eq!(out(&mut holder, 1, 3, 1, 0).status(), 0);
        assert_eq!(out(&mut other, 4, 3, 2, 0).sense(), (5, 0x2600), "nobody has key 0");
        assert_eq!(out(&mut other, 4, 3, 2, 77).status(), CONFLICT, "nobody has key 77");
        assert_eq!(out(&mut other, if abort { 5 } else { 4 }, 5, 2, 1).status(), 0);
        let whose = vec![(INITIATOR.to_owned(), Isid([0, 2, 0x3d, 0, 0, 1]))];
        let told =
            |event: &Event| matches!(event, Event::Preempted { lun: 0, whose: them, .. } if *them == whose);
        assert_eq!(other.others.iter().any(told), abort);
        assert_eq!(third.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2a04));
        assert_eq!(holder.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2a05));
        assert_eq!((reads(&mut holder), writes(&mut holder)), (0, CONFLICT));
        assert_eq!(writes(&mut other), 0);
    }
}

#[test]
fn preempt_and_abort_is_answered_when_what_it_aborted_is_over() {
    let mut holder = Pair::ready(&[]);
    let mut other = holder.beside(2);
    registered(&mut holder, 1);
    registered(&mut other, 2);
    other.others_work = true;
    let mut list = [0; 24];
    (list[7], list[15]) = (2, 1);
    let preempt = [0x5f, 5, 1, 0, 0, 0, 0, 0, 24, 0];
    assert!(other.command(5, 0, &preempt, 0x20, 24, &list).is_empty());
    assert_eq!(holder.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2a05));
    assert_eq!(read(&mut holder, 0)[15], 2, "it has happened all the same");
    // It may be aborted as any other command; then the abort is what waits.
    let mut abort = [0; 48];
    (abort[0], abort[1], abort[19], abort[23]) = (0x42, 0x81, 9, 5);
    abort[24..28].copy_from_slice(&other.cmd_sn.to_be_bytes());
    other.send(&abort, b"");
    assert!(other.answers.is_empty());
    other.others_work = false;
    other.drive();
    assert_eq!(other.answers.pop_front().map(|answer| (answer.opcode(), answer.header[2])), Some((0x22, 0)));
    assert!(other.answers.is_empty());
    registered(&mut holder, 1);
    other.others_work = true;
    assert!(other.command(5, 0, &preempt, 0x20, 24, &list).is_empty());
    other.others_work = false;
    other.drive();
    assert_eq!(other.answers[0].status(), 0);
}

#[test]
fn reserve_ends_with_its_session_or_a_reset_and_lets_little_through() {
    let reserve = [0x16, 0, 0, 0, 0, 0];
    let mut holder = Pair::ready(&[]);
    let mut other = holder.beside(2);
    assert_eq!(holder.command(5, 0, &reserve, 0, 0, &[])[0].status(), 0);
    assert_eq!(holder.command(5, 0, &reserve, 0, 0, &[])[0].status(), 0);
    assert_eq!(writes(&mut holder), 0);
    assert_eq!((reads(&mut other), writes(&mut other)), (CONFLICT, CONFLICT));
    for cdb in [&reserve[..], &[0; 6], &[0x1a, 0, 0x3f, 0, 255, 0], &[0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0]] {
        assert_eq!(other.command(5, 0, cdb, 0x40, 255, &[])[0].status(), CONFLICT, "{cdb:x?}");
    }
    assert_eq!(other.command(5, 0, &[0x12, 0, 0, 0, 36, 0], 0x40, 36, &[])[0].status(), 0);
    let release = [0x17, 0, 0, 0, 0, 0];
    assert_eq!(other.command(5, 0, &release, 0, 0, &[])[0].status(), 0, "and changes nothing");
    assert_eq!(writes(&mut other), CONFLICT);
    assert_eq!(holder.command(5, 0, &release, 0, 0, &[])[0].status(), 0);
    assert_eq!(writes(&mut other), 0);
    assert_eq!(holder.command(5, 0, &reserve, 0, 0, &[])[0].status(), 0);
    drop(holder);
    assert_eq!(writes(&mut other), 0);
    // Where somebody is registered, this kind is refused, and the other way round.
    registered(&mut other, 1);
    assert_eq!(other.command(5, 0, &reserve, 0, 0, &[])[0].status(), CONFLICT);
}

#[test]
fn a_list_that_is_cut_off_or_asks_for_what_is_not_there_changes_nothing() {
    let mut pair = Pair::ready(&[]);
    for length in 0..24_u8 {
        let cdb = [0x5f, 0, 0, 0, 0, 0, 0, 0, length, 0];
        let answer = &pair.command(5, 0, &cdb, 0x20, length.into(), &vec![1; length.into()])[0];
        assert_eq!(answer.sense(), (5, 0x1a00), "{length}");
        // The CDB tells the truth, the data do not come up to it.
        let cdb = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
        let answer = &pair.command(5, 0, &cdb, 0x20, length.into(), &vec![1; length.into()])[0];
        assert_eq!(answer.sense(), (5, 0x0e03), "{length}");
    }
    for flags in [0x01, 0x04, 0x08] {
        let mut list = [0; 24];
        (list[15], list[20]) = (1, flags);
        let cdb = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
        assert_eq!(pair.command(5, 0, &cdb, 0x20, 24, &list)[0].sense(), (5, 0x2600), "{flags:x}");
    }
    assert_eq!(read(&mut pair, 0), [0; 8]);
    registered(&mut pair, 1);
    for (action, kind) in [(1, 0), (1, 2), (1, 9), (1, 0x13), (7, 1), (31, 1)] {
        assert_eq!(out(&mut pair, action, kind, 1, 0).sense(), (5, 0x2400), "{action} {kind}");
    }
}
