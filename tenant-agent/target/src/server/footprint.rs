//! What work touches, and so what it can be done beside.
//!
//! Invariant: of two pieces of work that conflict, the one that came first is over before the other begins.

use bmi_iscsi::{Range, Work};

/// Where on its unit work reads or writes.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    from: u64,
    to: u64,
    writes: bool,
    /// Nothing else of the unit may be done meanwhile.
    alone: bool,
}

impl Footprint {
    pub fn of(work: &Work) -> Self {
        let (range, writes) = match work {
            Work::Read(range) | Work::Check(range) | Work::Prefetch(range) => (*range, false),
            Work::Compare { offset, data } => (range(*offset, data), false),
            Work::Write { offset, data, .. }
            | Work::WriteVerify { offset, data }
            | Work::CompareAndWrite { offset, data, .. }
            | Work::Or { offset, data, .. } => (range(*offset, data), true),
            Work::Repeat { range, .. } | Work::Zero { range, .. } => (*range, true),
            Work::Discard { ranges, .. } => (hull(ranges), true),
            Work::Extent { offset } => (Range { offset: *offset, length: 1 }, false),
            Work::Flush | Work::FlushAll => (Range { offset: 0, length: 0 }, false),
        };
        let alone = matches!(
            work,
            Work::CompareAndWrite { .. } | Work::Or { .. } | Work::WriteVerify { .. } | Work::FlushAll
        );
        Self { from: range.offset, to: range.offset.saturating_add(range.length), writes, alone }
    }

    /// Whether these two must not be done at the same time.
    pub const fn conflicts(&self, other: &Self) -> bool {
        self.alone
            || other.alone
            || (self.writes || other.writes) && self.from < other.to && other.from < self.to
    }
}

fn range(offset: u64, data: &[u8]) -> Range {
    Range { offset, length: data.len() as u64 }
}

/// The smallest range that holds all of these.
fn hull(ranges: &[Range]) -> Range {
    let from = ranges.iter().map(|range| range.offset).min().unwrap_or(0);
    let to = ranges.iter().map(|range| range.offset.saturating_add(range.length)).max().unwrap_or(0);
    Range { offset: from, length: to - from }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reads_and_what_lies_apart_go_together() {
        let read = |offset, length| Footprint::of(&Work::Read(Range { offset, length }));
        let write =
            |offset, length| Footprint::of(&Work::Write { offset, data: vec![0; length], durable: false });
        let discard = |pairs: [(u64, u64); 2]| {
            let ranges = pairs.map(|(offset, length)| Range { offset, length }).to_vec();
            Footprint::of(&Work::Discard { ranges, durable: false })
        };
        let swap = Footprint::of(&Work::CompareAndWrite { offset: 0, data: vec![0; 1024], durable: false });
        let flush = Footprint::of(&Work::Flush);
        for (one, other, conflicts) in [
            (read(0, 4096), read(0, 4096), false),
            (read(0, 4096), write(4096, 512), false),
            (read(0, 4096), write(4095, 512), true),
            (write(0, 512), write(0, 512), true),
            (write(0, 512), write(512, 512), false),
            (write(8192, 512), discard([(0, 512), (16384, 512)]), true),
            (swap, read(1 << 30, 512), true),
            (flush, write(0, 512), false),
            (flush, flush, false),
            (Footprint::of(&Work::FlushAll), write(0, 512), true),
        ] {
            assert_eq!(one.conflicts(&other), conflicts, "{one:?} {other:?}");
            assert_eq!(other.conflicts(&one), conflicts, "{other:?} {one:?}");
        }
    }
}
