//! COMPARE AND WRITE, ORWRITE, WRITE AND VERIFY, PRE-FETCH, GET LBA STATUS.

use bmi_iscsi::{Range, TRANSFER_MAX, Work};

use crate::pair::{Pair, config, ten};

/// COMPARE AND WRITE of so many blocks from a block on.
fn compare_and_write(block: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = 0x89;
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[13] = blocks;
    cdb
}

/// A command of 16 bytes.
fn sixteen(operation: u8, block: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = operation;
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

#[test]
fn compare_and_write_writes_only_what_was_expected_and_says_where_it_differs() {
    let mut pair = Pair::ready(&[]);
    let data = [[0; 512], [7; 512]].concat();
    assert_eq!(pair.command(5, 0, &compare_and_write(3, 1), 0x20, 1024, &data)[0].status(), 0);
    assert!(pair.disk[3 * 512..4 * 512].iter().all(|byte| *byte == 7));
    pair.disk[3 * 512 + 100] = 8;
    let data = [[7; 512], [9; 512]].concat();
    let answer = &pair.command(5, 0, &compare_and_write(3, 1), 0x20, 1024, &data)[0];
    assert_eq!(answer.sense(), (0xe, 0x1d00));
    // VALID and INFORMATION, behind the two bytes of the sense length.
    assert_eq!((answer.data[2], answer.word_of_data(5)), (0xf0, 100));
    assert_eq!(pair.disk[3 * 512], 7, "nothing was written");
}

#[test]
fn compare_and_write_takes_its_two_halves_or_nothing() {
    let mut pair = Pair::ready(&[]);
    for (blocks, data, sense) in
        [(1, 512, (5, 0x0e03)), (1, 1536, (5, 0x0e03)), (0, 512, (5, 0x2400)), (129, 258 * 512, (5, 0x2400))]
    {
        // The tests' default FirstBurstLength is 64 KiB, so long ones are not sent at all.
        let sent = if data > 65_536 { 0 } else { data };
        let cdb = compare_and_write(0, blocks);
        let answers = pair.command(5, 0, &cdb, 0x20, data as u32, &vec![0; sent]);
        assert_eq!(answers[0].sense(), sense, "{blocks} blocks, {data} bytes");
    }
    assert_eq!(pair.command(5, 0, &compare_and_write(0, 0), 0, 0, &[])[0].status(), 0);
    let beyond = pair.command(5, 0, &compare_and_write(4096, 1), 0x20, 1024, &[0; 1024]);
    assert_eq!(beyond[0].sense(), (5, 0x2100));
    let read_only = pair.command(5, 1, &compare_and_write(0, 1), 0x20, 1024, &[0; 1024]);
    assert_eq!(read_only[0].sense(), (7, 0x2700));
}

#[test]
fn or_write_keeps_the_bits_that_are_there() {
    let mut pair = Pair::ready(&[]);
    pair.disk[..1024].fill(0x0f);
    assert_eq!(pair.command(5, 0, &sixteen(0x8b, 1, 1), 0x20, 512, &[0xf0; 512])[0].status(), 0);
    assert_eq!((pair.disk[511], pair.disk[512], pair.disk[1023]), (0x0f, 0xff, 0xff));
    assert_eq!(pair.command(5, 0, &sixteen(0x8b, 4096, 1), 0x20, 512, &[1; 512])[0].sense(), (5, 0x2100));
}

#[test]
fn write_and_verify_writes() {
    let mut pair = Pair::ready(&[]);
    assert_eq!(pair.command(5, 0, &ten(0x2e, 2, 1), 0x20, 512, &[5; 512])[0].status(), 0);
    assert_eq!(pair.disk[1024], 5);
    let mut reserved = ten(0x2e, 2, 1);
    reserved[1] = 0x06;
    assert_eq!(pair.command(5, 0, &reserved, 0x20, 512, &[5; 512])[0].sense(), (5, 0x2400));
}

#[test]
fn pre_fetch_reads_ahead_within_bounds() {
    let mut pair = Pair::ready(&[]);
    pair.slow = true;
    // The disk has 4096 blocks, which is less than what is read ahead at most.
    for (cdb, offset, length) in [
        (&ten(0x34, 2, 8)[..], 1024, 4096),
        (&ten(0x34, 4000, 0), 4000 * 512, 96 * 512),
        (&sixteen(0x90, 1, 4095), 512, 4095 * 512),
    ] {
        assert!(pair.command(5, 0, cdb, 0, 0, &[]).is_empty());
        assert_eq!(pair.held[0].1, Work::Prefetch(Range { offset, length }));
        pair.release();
        assert_eq!(pair.answers.pop_front().map(|answer| answer.status()), Some(0));
    }
    assert_eq!(pair.command(5, 0, &sixteen(0x90, 4095, 2), 0, 0, &[])[0].sense(), (5, 0x2100));
    assert_eq!(pair.command(5, 0, &sixteen(0x90, 4097, 0), 0, 0, &[])[0].sense(), (5, 0x2100));
    assert_eq!(pair.command(5, 0, &sixteen(0x90, 4096, 0), 0, 0, &[])[0].status(), 0);
}

#[test]
fn pre_fetch_of_a_large_disk_reads_a_part_of_it() {
    let mut config = config();
    config.units[0].blocks = 1 << 24;
    let mut pair = Pair::new(config);
    pair.log_in(&[]);
    pair.command(5, 0, &[0; 6], 0, 0, &[]);
    pair.slow = true;
    pair.command(5, 0, &sixteen(0x90, 8, 0), 0, 0, &[]);
    let length = TRANSFER_MAX.into();
    assert_eq!(pair.held[0].1, Work::Prefetch(Range { offset: 4096, length }));
}

#[test]
fn lba_status_tells_holes_from_data() {
    let mut pair = Pair::ready(&[]);
    let mut status = |block: u64, allocation: u32| {
        let mut cdb = sixteen(0x9e, block, allocation);
        cdb[1] = 0x12;
        pair.command(5, 0, &cdb, 0x40, 64, &[]).remove(0)
    };
    let mapped = status(8, 64);
    assert_eq!(mapped.data.len(), 24);
    assert_eq!((mapped.word_of_data(12), mapped.word_of_data(16), mapped.data[20]), (8, 120, 0));
    let hole = status(200, 64);
    assert_eq!((hole.word_of_data(12), hole.word_of_data(16), hole.data[20]), (200, 3896, 1));
    assert_eq!(status(8, 16).data.len(), 16, "cut to the allocation length");
    assert_eq!(status(4096, 64).sense(), (5, 0x2100));
}
