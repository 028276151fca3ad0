//! MODE SELECT: write cache, format of sense data, software write protect.

use bmi_iscsi::Work;

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
            assert_eq!(select(&mut pair, &wrong).status(), 2, "byte {at}, bit {bit}");
        }
    }
    // SP, and a page that there is not.
    assert_eq!(pair.command(5, 0, &[0x15, 0x11, 0, 0, 24, 0], 0x20, 24, &list[..24])[0].sense(), (5, 0x2400));
    assert_eq!(select(&mut pair, &[0x02, 2, 0, 0]).sense(), (5, 0x2600));
    assert_eq!(page(&mut pair, 0x3f), before);
}
