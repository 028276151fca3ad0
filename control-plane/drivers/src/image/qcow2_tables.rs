//! The tables of a qcow2 file: everything they point to is there, and nothing is pointed to twice.
//!
//! So the disk is never larger than what the file holds, apart from what is compressed, and that has a bound. Memory:
//! one bit per cluster of the file, one table at a time.

use super::ReadAt;

use super::qcow2::{Bytes, Header, part, within};
use super::refusal::Refusal;

/// Clusters a file may have: a bit each is 32 MiB. With the usual 64 KiB that is a file of 16 TiB.
const CLUSTERS_MAX: u64 = 1 << 28;

/// How many times as large as the file its content may be. Compressed system images stay below 20; deflate can do
/// 1032.
const RATIO_MAX: u64 = 100;

/// Entries: where something is, and what it is. Every other bit is reserved.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Which clusters of the file are spoken for.
struct Clusters {
    bits: Vec<u64>,
    size: u64,
}

impl Clusters {
    fn new(length: u64, size: u64) -> Result<Self, Refusal> {
        let count = length.div_ceil(size);
        if count > CLUSTERS_MAX {
            return Err(Refusal::Unsupported(format!("{count} clusters of {size} bytes")));
        }
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(0);
        Ok(Self { bits: vec![0; words], size })
    }

    /// Takes every cluster that bytes touch. What is taken already is not taken twice.
    fn take(&mut self, at: u64, length: u64, what: &'static str) -> Result<(), Refusal> {
        let (first, last) = (at / self.size, at.saturating_add(length.saturating_sub(1)) / self.size);
        for cluster in first..=last {
            let bit = 1_u64 << (cluster % 64);
            let word = usize::try_from(cluster / 64).ok().and_then(|word| self.bits.get_mut(word));
            match word {
                Some(word) if *word & bit == 0 => *word |= bit,
                _ => return Err(Refusal::Overlap(what)),
            }
        }
        Ok(())
    }
}

/// Walks the tables; answers how many bytes of the disk are not zero, at most.
pub(super) fn content(file: &dyn ReadAt, length: u64, header: &Header) -> Result<u64, Refusal> {
    let cluster = header.cluster();
    let mut taken = Clusters::new(length, cluster)?;
    taken.take(0, 1, "the header")?;
    refcounts(file, length, header, &mut taken)?;
    let l1_bytes = header.l1_entries.saturating_mul(8);
    let l1 = part(file, header.l1_offset, l1_bytes, length, "the first table")?;
    if l1_bytes > 0 {
        taken.take(header.l1_offset, l1_bytes, "the first table")?;
    }
    let (mut plain, mut packed) = (0_u64, 0_u64);
    for (entry, reach) in entries(&l1).zip((0..).map(|index: u64| index.saturating_mul(header.l2_reach()))) {
        let at = entry & OFFSET;
        if entry & !(OFFSET | COPIED) != 0 || !at.is_multiple_of(cluster) {
            return Err(Refusal::Header(format!("the first table has the entry {entry:#x}")));
        }
        if at == 0 {
            continue;
        }
        if reach >= header.virtual_size {
            return Err(Refusal::Header("the first table goes on beyond the end of the disk".to_owned()));
        }
        let l2 = part(file, at, cluster, length, "a second table")?;
        taken.take(at, cluster, "a second table")?;
        for entry in entries(&l2) {
            if entry & COMPRESSED != 0 {
                compressed(entry, length, header)?;
                packed = packed.saturating_add(cluster);
            } else if data(entry, length, header, &mut taken)? {
                plain = plain.saturating_add(cluster);
            }
        }
    }
    let content = plain.saturating_add(packed);
    if content > length.saturating_mul(RATIO_MAX) {
        return Err(Refusal::Ratio { file: length, content, most: RATIO_MAX });
    }
    Ok(content)
}

fn entries(table: &[u8]) -> impl Iterator<Item = u64> {
    table.chunks_exact(8).map(|entry| Bytes(entry).u64(0))
}

/// An entry of a second table that is not compressed; answers whether it has data.
fn data(entry: u64, length: u64, header: &Header, taken: &mut Clusters) -> Result<bool, Refusal> {
    let at = entry & OFFSET;
    let zero = header.version >= 3 && entry & ZERO != 0;
    let known = OFFSET | COPIED | if header.version >= 3 { ZERO } else { 0 };
    if entry & !known != 0 || !at.is_multiple_of(header.cluster()) {
        return Err(Refusal::Header(format!("a second table has the entry {entry:#x}")));
    }
    if at == 0 {
        return Ok(false);
    }
    within(at, header.cluster(), length, "a part of the disk")?;
    taken.take(at, header.cluster(), "a part of the disk")?;
    Ok(!zero)
}

/// A compressed part: where it is, and how many sectors of the file it touches. Several may share a cluster.
fn compressed(entry: u64, length: u64, header: &Header) -> Result<(), Refusal> {
    let bits = 62 - (header.cluster_bits - 8);
    let at = entry & ((1 << bits) - 1);
    let sectors = ((entry >> bits) & ((1 << (header.cluster_bits - 8)) - 1)) + 1;
    let size = (sectors * 512).saturating_sub(at % 512);
    // The last sector of the file need not be whole.
    within(at, size, length.next_multiple_of(512), "a compressed part of the disk")
}

fn refcounts(file: &dyn ReadAt, length: u64, header: &Header, taken: &mut Clusters) -> Result<(), Refusal> {
    let bytes = header.refcounts_clusters.saturating_mul(header.cluster());
    if bytes == 0 {
        return Err(Refusal::Header("there is no table of reference counts".to_owned()));
    }
    let table = part(file, header.refcounts_offset, bytes, length, "the table of reference counts")?;
    taken.take(header.refcounts_offset, bytes, "the table of reference counts")?;
    for at in entries(&table).filter(|at| *at != 0) {
        if !at.is_multiple_of(header.cluster()) {
            return Err(Refusal::Header(format!("reference counts at byte {at}")));
        }
        within(at, header.cluster(), length, "reference counts")?;
        taken.take(at, header.cluster(), "reference counts")?;
    }
    Ok(())
}
