//! The header of a qcow2 file (QEMU's `docs/interop/qcow2.txt`), as far as it decides whether the file is taken.
//!
//! What is not known to be harmless is refused: other files, keys, features and extensions that are not in the lists
//! below. Reads are bounded by the header's own cluster, at most 2 MiB.

use super::ReadAt;

use super::disk_check;
use super::refusal::Refusal;

/// Length of a header of version 2, and the least of version 3.
const LENGTH_2: u64 = 72;
const LENGTH_3: u64 = 104;

/// Bits of a cluster's size: 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// The largest tables QEMU itself opens, in bytes.
const L1_MAX: u64 = 32 << 20;
const REFCOUNTS_MAX: u64 = 8 << 20;

/// Incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION: u32 = 0x0537_be77;
const DATA_FILE: u32 = 0x4441_5441;

/// What is needed of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub virtual_size: u64,
    pub cluster_bits: u32,
    pub l1_entries: u64,
    pub l1_offset: u64,
    pub refcounts_offset: u64,
    pub refcounts_clusters: u64,
    pub version: u32,
}

/// Big-endian numbers at fixed places.
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub(super) fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at.saturating_add(4)).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..at.saturating_add(8)).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_be_bytes)
    }
}

/// Reads exactly what is asked for, which must be there.
pub(super) fn part(
    file: &dyn ReadAt,
    at: u64,
    length: u64,
    end: u64,
    what: &'static str,
) -> Result<Vec<u8>, Refusal> {
    within(at, length, end, what)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, at).map_err(Refusal::Unreadable)?;
    Ok(bytes)
}

/// Whether bytes are there.
pub(super) fn within(at: u64, length: u64, end: u64, what: &'static str) -> Result<(), Refusal> {
    match at.checked_add(length) {
        Some(last) if last <= end => Ok(()),
        _ => Err(Refusal::Truncated { what, at, length: end }),
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Header(what.into()))
}

impl Header {
    /// Reads and checks a header. The magic was seen.
    pub(super) fn read(file: &dyn ReadAt, length: u64) -> Result<Self, Refusal> {
        let fixed = part(file, 0, LENGTH_2, length, "the header")?;
        let fixed = Bytes(&fixed);
        let version = fixed.u32(4);
        let cluster_bits = fixed.u32(20);
        if !matches!(version, 2 | 3) {
            return Err(Refusal::Unsupported(format!("version {version}")));
        }
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return wrong(format!("clusters of 2^{cluster_bits} bytes"));
        }
        if fixed.u64(8) != 0 || fixed.u32(16) != 0 {
            return Err(Refusal::BackingFile);
        }
        if fixed.u32(32) != 0 {
            return Err(Refusal::Encrypted);
        }
        let cluster = 1_u64 << cluster_bits;
        let header_length = if version == 2 { LENGTH_2 } else { version_3(file, length, cluster)? };
        extensions(file, length, header_length, cluster)?;
        let snapshots = fixed.u32(60);
        if snapshots != 0 {
            return Err(Refusal::Snapshots(snapshots));
        }
        let header = Self {
            virtual_size: fixed.u64(24),
            cluster_bits,
            l1_entries: u64::from(fixed.u32(36)),
            l1_offset: fixed.u64(40),
            refcounts_offset: fixed.u64(48),
            refcounts_clusters: u64::from(fixed.u32(56)),
            version,
        };
        disk_check(header.virtual_size)?;
        header.tables_check(length)?;
        Ok(header)
    }

    pub(super) const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the disk behind one entry of the first table.
    pub(super) const fn l2_reach(&self) -> u64 {
        (self.cluster() / 8).saturating_mul(self.cluster())
    }

    fn tables_check(&self, length: u64) -> Result<(), Refusal> {
        let needed = self.virtual_size.div_ceil(self.l2_reach());
        let l1_bytes = self.l1_entries.saturating_mul(8);
        if self.l1_entries < needed {
            return wrong(format!(
                "the first table has {} entries of the {needed} it needs",
                self.l1_entries
            ));
        }
        if l1_bytes > L1_MAX {
            return wrong(format!("the first table has {l1_bytes} bytes, more than {L1_MAX}"));
        }
        let refcounts = self.refcounts_clusters.saturating_mul(self.cluster());
        if refcounts > REFCOUNTS_MAX {
            return wrong(format!(
                "the table of reference counts has {refcounts} bytes, more than {REFCOUNTS_MAX}"
            ));
        }
        for at in [self.l1_offset, self.refcounts_offset] {
            if !at.is_multiple_of(self.cluster()) {
                return wrong(format!("a table at byte {at}, which is not where a cluster begins"));
            }
        }
        within(self.l1_offset, l1_bytes, length, "the first table")?;
        within(self.refcounts_offset, refcounts, length, "the table of reference counts")
    }
}

/// What version 3 adds; answers the header's length.
fn version_3(file: &dyn ReadAt, length: u64, cluster: u64) -> Result<u64, Refusal> {
    let bytes = part(file, 0, LENGTH_3, length, "the header")?;
    let bytes = Bytes(&bytes);
    let features = bytes.u64(72);
    if features & EXTERNAL_DATA != 0 {
        return Err(Refusal::DataFile);
    }
    if features & DIRTY != 0 {
        return Err(Refusal::Marked("dirty"));
    }
    if features & CORRUPT != 0 {
        return Err(Refusal::Marked("corrupt"));
    }
    if features & EXTENDED_L2 != 0 {
        return Err(Refusal::Unsupported("extended table entries".to_owned()));
    }
    let unknown = features & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return Err(Refusal::Unsupported(format!("features {unknown:#x}")));
    }
    if bytes.u32(96) > 6 {
        return wrong(format!("reference counts of 2^{} bits", bytes.u32(96)));
    }
    let header_length = u64::from(bytes.u32(100));
    if header_length < LENGTH_3 || header_length > cluster || !header_length.is_multiple_of(8) {
        return wrong(format!("a header of {header_length} bytes"));
    }
    if features & COMPRESSION_TYPE != 0 {
        // zlib is 0 and needs no feature; zstd is 1.
        let kind =
            if header_length > LENGTH_3 { part(file, LENGTH_3, 1, length, "the header")? } else { vec![0] };
        if kind.first().is_none_or(|kind| *kind > 1) {
            return Err(Refusal::Unsupported("a compression other than zlib and zstd".to_owned()));
        }
    }
    Ok(header_length)
}

/// Extensions follow the header within its cluster, each with its kind, its length and its bytes, padded to eight.
fn extensions(file: &dyn ReadAt, length: u64, header_length: u64, cluster: u64) -> Result<(), Refusal> {
    let bytes = part(file, 0, cluster.min(length), length, "the header")?;
    let bytes = Bytes(&bytes);
    let mut at = usize::try_from(header_length).unwrap_or(usize::MAX);
    while at.saturating_add(8) <= bytes.0.len() {
        let (kind, size) = (bytes.u32(at), bytes.u32(at + 4));
        match kind {
            END => return Ok(()),
            FEATURE_NAMES => {}
            BACKING_FORMAT => return Err(Refusal::BackingFile),
            DATA_FILE => return Err(Refusal::DataFile),
            ENCRYPTION => return Err(Refusal::Encrypted),
            BITMAPS => return Err(Refusal::Unsupported("bitmaps".to_owned())),
            other => return Err(Refusal::Unsupported(format!("the extension {other:#x}"))),
        }
        let padded = usize::try_from(size).ok().and_then(|size| size.checked_next_multiple_of(8));
        at = padded
            .and_then(|padded| at.checked_add(8)?.checked_add(padded))
            .ok_or_else(|| Refusal::Header("an extension that never ends".to_owned()))?;
    }
    if at > bytes.0.len() { wrong("an extension reaches beyond the header's cluster") } else { Ok(()) }
}
