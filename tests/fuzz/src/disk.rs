//! Disks in memory: work is looked at, and done.

use bmi_iscsi::{Connection, Outcome, READ_PIECE, Range, TRANSFER_MAX, Unit, Work};

/// Does work on a disk; one without bytes reads as zeros and keeps nothing.
pub fn execute(target: &mut Connection, unit: &Unit, disk: &mut [u8], work: Work) -> Outcome {
    let bytes = unit.blocks * u64::from(unit.block_size);
    match work {
        Work::Read(range) => {
            let mut data = target.buffer(range.length as usize);
            assert_eq!(data.len() as u64, range.length, "a buffer of the length that was asked for");
            if disk.is_empty() {
                data.fill(0);
            } else {
                data.copy_from_slice(&disk[span(range)]);
            }
            Outcome::Data(data)
        }
        Work::Extent { offset } => {
            Outcome::Extent { offset, length: (bytes - offset).min(65_536), allocated: offset < 65_536 }
        }
        _ if disk.is_empty() => Outcome::Done,
        Work::Write { offset, data, .. } | Work::WriteVerify { offset, data } => {
            disk[offset as usize..][..data.len()].copy_from_slice(&data);
            target.give_back(data);
            Outcome::Done
        }
        Work::Compare { offset, data } => differs(&disk[offset as usize..], &data).unwrap_or(Outcome::Done),
        Work::CompareAndWrite { offset, data, .. } => {
            let (expected, new) = data.split_at(data.len() / 2);
            let held = &mut disk[offset as usize..][..new.len()];
            differs(held, expected).unwrap_or_else(|| {
                held.copy_from_slice(new);
                Outcome::Done
            })
        }
        Work::Or { offset, data, .. } => {
            disk[offset as usize..].iter_mut().zip(data).for_each(|(held, new)| *held |= new);
            Outcome::Done
        }
        Work::Repeat { range, block, .. } => {
            disk[span(range)].chunks_mut(block.len()).for_each(|chunk| chunk.copy_from_slice(&block));
            Outcome::Done
        }
        Work::Zero { range, .. } => {
            disk[span(range)].fill(0);
            Outcome::Done
        }
        Work::Discard { ranges, .. } => {
            ranges.into_iter().for_each(|range| disk[span(range)].fill(0));
            Outcome::Done
        }
        Work::Check(_) | Work::Prefetch(_) | Work::Flush | Work::FlushAll => Outcome::Done,
    }
}

fn span(range: Range) -> std::ops::Range<usize> {
    range.offset as usize..(range.offset + range.length) as usize
}

fn differs(held: &[u8], expected: &[u8]) -> Option<Outcome> {
    let at = held.iter().zip(expected).position(|(held, expected)| held != expected)?;
    Some(Outcome::Differs { at: at as u32 })
}

/// What work brings to the disk.
pub fn data(work: &Work) -> &[u8] {
    match work {
        Work::Write { data, .. }
        | Work::WriteVerify { data, .. }
        | Work::CompareAndWrite { data, .. }
        | Work::Or { data, .. }
        | Work::Compare { data, .. } => data,
        Work::Repeat { block, .. } => block,
        _ => &[],
    }
}

/// Checks that work lies within its unit, and answers a number for its kind.
pub fn judge(unit: &Unit, work: &Work) -> u64 {
    let (size, bytes) = (u64::from(unit.block_size), unit.blocks * u64::from(unit.block_size));
    let within = |offset: u64, length: u64| {
        let end = offset.checked_add(length).expect("no overflow");
        assert!(end <= bytes, "{work:?} of {bytes} bytes");
        assert!(offset.is_multiple_of(size) && length.is_multiple_of(size), "whole blocks");
    };
    assert!(data(work).len() as u64 <= u64::from(TRANSFER_MAX), "more data than a command may bring");
    let changes = work.writes() || matches!(work, Work::Discard { .. });
    assert!(!changes || !unit.read_only, "a write to a unit that is read-only");
    let (kind, offset, length) = match work {
        Work::Read(range) => {
            assert!(range.length > 0, "a READ of nothing is answered at once");
            assert!(range.length <= u64::from(READ_PIECE), "a READ is done in pieces");
            // It ends where the initiator's room ends.
            assert!(range.offset.checked_add(range.length).is_some_and(|end| end <= bytes), "{work:?}");
            return 0;
        }
        Work::Write { offset, data, .. } => (1, *offset, data.len() as u64),
        Work::WriteVerify { offset, data } => (2, *offset, data.len() as u64),
        Work::CompareAndWrite { offset, data, .. } => (3, *offset, data.len() as u64 / 2),
        Work::Or { offset, data, .. } => (4, *offset, data.len() as u64),
        Work::Extent { offset } => {
            assert!(*offset < bytes, "an extent of nothing");
            (5, *offset, 0)
        }
        Work::Compare { offset, data } => (6, *offset, data.len() as u64),
        Work::Check(range) => (7, range.offset, range.length),
        Work::Prefetch(range) => {
            assert!(range.length > 0 && range.length <= u64::from(TRANSFER_MAX), "bounded");
            (13, range.offset, range.length)
        }
        Work::Flush => return 8,
        Work::FlushAll => return 12,
        Work::Repeat { range, block, .. } => {
            assert!(block.len() as u64 == size, "one block");
            (9, range.offset, range.length)
        }
        Work::Zero { range, .. } => (10, range.offset, range.length),
        Work::Discard { ranges, .. } => {
            assert!(!ranges.is_empty() && ranges.len() <= 4096, "{} ranges", ranges.len());
            ranges.iter().for_each(|range| within(range.offset, range.length));
            return 11;
        }
    };
    within(offset, length);
    kind
}
