//! MODE SELECT: write cache, format of sense data, software write protect.

use bmi_iscsi::{Fault, Outcome, Work};

use crate::pair::{Pair, ten};

const WCE: u8 = 0x04;

/// MODE SENSE (6) of current values: the header, and the one page.
fn page(pair: &mut Pair, number: u8) -> (Vec<u8>, Vec<u8>) {
    let data = pair.command(5, 0, &[0x1a, 0x08, number, 0, 255, 0], 0x40, 255, &[]).remove(0).data;
    (data[..4].to_vec(), data[4..].to_vec())
}

/// MODE SELECT (6) of one page.
fn select(pair: &mut Pair, page: &[u8]) -> crate::pair::Answer {
    let list = [&[0; 4][..], page].concat();
    let length = u8::try_from(list.len()).unwrap();
    pair.command(5, 0, &[0x15, 0x10, 0, 0, length, 0], 0x20, length.into(), &list).remove(0)
}

#[test]
fn with_the_write_cache_off_every_write_is_durable_and_others_are_told() {
    let mut pair = Pair::ready(&[]);
    let mut other = pair.beside(2);
    let (_, mut caching) = page(&mut pair, 0x08);
    assert_eq!(caching[2] & WCE, WCE);
    caching[2] &= !WCE;
    assert_eq!(select(&mut pair, &caching).status(), 0);
    assert_eq!(other.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2a01));
    assert_eq!(page(&mut other, 0x08).1[2] & WCE, 0);
    pair.slow = true;
    pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512]);
    pair.command(6, 0, &ten(0x41, 0, 1), 0x20, 512, &[1; 512]);
    pair.command(7, 0, &ten(0x41, 0, 1), 0x20, 512, &[0; 512]);
    let mut list = [0; 24];
    (list[1], list[3], list[19]) = (22, 16, 1);
    pair.command(8, 0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 0x20, 24, &list);
    let works: Vec<&Work> = pair.held.iter().map(|(_, work)| work).collect();
    assert!(matches!(
        works[..],
        [
            Work::Write { durable: true, .. },
            Work::Repeat { durable: true, .. },
            Work::Zero { durable: true, .. },
            Work::Discard { durable: true, .. },
        ]
    ));
}

/// MODE SELECT (6) that switches the write cache off: the command and its list.
fn cache_off(pair: &mut Pair) -> ([u8; 6], Vec<u8>) {
    let mut caching = page(pair, 0x08).1;
    caching[2] &= !WCE;
    let list = [&[0; 4][..], &caching].concat();
    ([0x15, 0x10, 0, 0, u8::try_from(list.len()).unwrap(), 0], list)
}

#[test]
fn the_write_cache_is_off_when_what_came_before_is_flushed() {
    let mut pair = Pair::ready(&[]);
    let (select, list) = cache_off(&mut pair);
    pair.slow = true;
    pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512]);
    assert!(pair.command(6, 0, &select, 0x20, 24, &list).is_empty(), "not before the flush");
    pair.command(7, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512]);
    let works: Vec<&Work> = pair.held.iter().map(|(_, work)| work).collect();
    assert!(matches!(
        works[..],
        [Work::Write { durable: false, .. }, Work::FlushAll, Work::Write { durable: true, .. }]
    ));
    pair.release();
    assert_eq!(pair.answers.iter().map(|answer| answer.word(16)).collect::<Vec<_>>(), [5, 6, 7]);
    pair.answers.clear();
}

#[test]
fn a_flush_that_fails_is_told() {
    let mut pair = Pair::ready(&[]);
    let (select, list) = cache_off(&mut pair);
    pair.slow = true;
    pair.command(6, 0, &select, 0x20, 24, &list);
    let (task, _) = pair.held.remove(0);
    pair.target.complete(task, Outcome::Failed(Fault::Write));
    pair.drive();
    assert_eq!(pair.answers.remove(0).unwrap().sense(), (3, 0x0c00));
    // It is off, and what came before is in doubt. Whoever says so again, here or in another session, waits for a flush.
    let mut other = pair.beside(2);
    other.slow = true;
    for again in [&mut pair, &mut other] {
        assert!(again.command(7, 0, &select, 0x20, 24, &list).is_empty());
        assert!(matches!(again.held[0].1, Work::FlushAll));
        again.release();
        assert_eq!(again.answers.remove(0).unwrap().status(), 0);
    }
}

#[test]
fn the_write_cache_counts_when_a_write_is_done_and_not_when_it_comes() {
    let mut pair = Pair::ready(&["ImmediateData=No"]);
    let mut other = pair.beside(2);
    let (select, list) = cache_off(&mut other);
    pair.slow = true;
    let r2t = pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[]).remove(0);
    assert_eq!(other.command(6, 0, &select, 0x20, 24, &list)[0].status(), 0);
    pair.data_out(5, r2t.word(20), 0, 0, true, &[1; 512]);
    assert!(matches!(pair.held[0].1, Work::Write { durable: true, .. }));
}

#[test]
fn software_write_protect_refuses_writes_and_is_taken_off_again() {
    let mut pair = Pair::ready(&[]);
    let (_, mut control) = page(&mut pair, 0x0a);
    control[4] |= 0x08;
    assert_eq!(select(&mut pair, &control).status(), 0);
    assert_eq!(page(&mut pair, 0x0a).0[2] & 0x80, 0x80, "WP");
    assert_eq!(pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512])[0].sense(), (7, 0x2702));
    assert_eq!(pair.command(5, 0, &ten(0x28, 0, 1), 0x40, 512, &[])[0].opcode(), 0x25);
    // Neither writes the medium: SYNCHRONIZE CACHE, and START STOP UNIT that stops.
    assert_eq!(pair.command(5, 0, &ten(0x35, 0, 0), 0, 0, &[])[0].status(), 0);
    assert_eq!(pair.command(5, 0, &[0x1b, 0, 0, 0, 0, 0], 0, 0, &[])[0].status(), 0);
    control[4] &= !0x08;
    assert_eq!(select(&mut pair, &control).status(), 0);
    assert_eq!(pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512])[0].status(), 0);
}

#[test]
fn descriptor_sense_is_given_when_it_is_asked_for() {
    let mut pair = Pair::ready(&[]);
    let (_, mut control) = page(&mut pair, 0x0a);
    control[2] |= 0x04;
    assert_eq!(select(&mut pair, &control).status(), 0);
    let answer = &pair.command(5, 0, &ten(0x28, u32::MAX, 1), 0x40, 512, &[])[0];
    assert_eq!((answer.status(), &answer.data[..6]), (2, &[0, 8, 0x72, 5, 0x21, 0][..]));
}

#[test]
fn a_list_that_is_cut_off_or_wants_what_cannot_be_changes_nothing() {
    let mut pair = Pair::ready(&[]);
    let before = page(&mut pair, 0x3f);
    let (_, mut caching) = page(&mut pair, 0x08);
    caching[2] &= !WCE;
    let list = [&[0; 4][..], &caching].concat();
    for length in 1..list.len() {
        let short = u8::try_from(length).unwrap();
        let cdb = [0x15, 0x10, 0, 0, short, 0];
        let answer = pair.command(5, 0, &cdb, 0x20, short.into(), &list[..length]).remove(0);
        // The header alone names no page, and asks for nothing.
        if length == 4 {
            assert_eq!(answer.status(), 0);
        } else {
            assert!(matches!(answer.sense(), (5, 0x1a00 | 0x2600)), "{length}: {:x?}", answer.sense());
        }
    }
    for (at, bit) in (0..caching.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut wrong = page(&mut pair, 0x08).1;
        wrong[at] ^= 1 << bit;
        if (at, 1 << bit) != (2, WCE) {
            let answer = select(&mut pair, &wrong);
            assert_eq!(answer.status(), 2, "byte {at}, bit {bit}");
            // The page is behind a header of 4 bytes. Another number or length makes it another page.
            if at >= 2 {
                assert_eq!(answer.field(), (0x80, 4 + at as u16), "byte {at}, bit {bit}");
            }
        }
    }
    // SP, and a page that there is not.
    assert_eq!(pair.command(5, 0, &[0x15, 0x11, 0, 0, 24, 0], 0x20, 24, &list[..24])[0].sense(), (5, 0x2400));
    assert_eq!(select(&mut pair, &[0x02, 2, 0, 0]).sense(), (5, 0x2600));
    assert_eq!(page(&mut pair, 0x3f), before);
}

#[test]
fn a_reset_brings_back_what_was_there_at_first() {
    // LOGICAL UNIT RESET, TARGET WARM RESET.
    for function in [5, 6] {
        let mut pair = Pair::ready(&[]);
        let mut other = pair.beside(2);
        let before = page(&mut pair, 0x3f);
        let (write_cache, list) = cache_off(&mut pair);
        assert_eq!(pair.command(5, 0, &write_cache, 0x20, 24, &list)[0].status(), 0);
        let mut control = page(&mut pair, 0x0a).1;
        (control[2], control[4]) = (control[2] | 0x04, control[4] | 0x08);
        assert_eq!(select(&mut pair, &control).status(), 0);
        assert_ne!(page(&mut pair, 0x3f), before);
        let mut reset = [0; 48];
        (reset[0], reset[1], reset[19]) = (0x42, 0x80 | function, 9);
        reset[24..28].copy_from_slice(&pair.cmd_sn.to_be_bytes());
        pair.send(&reset, b"");
        assert_eq!(pair.answers.pop_front().map(|answer| answer.header[2]), Some(0));
        for session in [&mut pair, &mut other] {
            // In fixed format again, and nothing of the pages that were changed before: the reset says it all.
            assert_eq!(session.command(5, 0, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2900));
            assert_eq!(page(session, 0x3f), before);
        }
        assert_eq!(pair.command(5, 0, &ten(0x2a, 0, 1), 0x20, 512, &[1; 512])[0].status(), 0);
    }
}
