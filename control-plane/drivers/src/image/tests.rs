//! Image files made by hand, one wrong thing at a time.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const CLUSTER: usize = 4096;
const DISK: u64 = 2 << 20;
/// Where the parts of [`whole`] are.
const L1: usize = CLUSTER;
const REFCOUNTS: usize = 2 * CLUSTER;
const L2: usize = 4 * CLUSTER;
const DATA: usize = 5 * CLUSTER;
const COPIED: u64 = 1 << 63;

/// A file under construction.
#[derive(Clone)]
struct Draft(Vec<u8>);

impl Draft {
    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn length(mut self, length: usize) -> Self {
        self.0.resize(length, 0);
        self
    }

    fn extension(self, kind: u32) -> Self {
        self.u32(104, kind).u32(108, 8).u64(112, 0x7374_7566_6600_0000)
    }

    fn file(&self) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.0).unwrap();
        file
    }

    fn inspect(&self) -> Result<Inspected, Refusal> {
        inspect(&self.file(), ImageFormat::Qcow2)
    }
}

/// A good file of version 3 with two clusters of data.
fn whole() -> Draft {
    let mut bytes = b"QFI\xfb".to_vec();
    bytes.resize(DATA + 2 * CLUSTER, 0);
    Draft(bytes)
        .u32(4, 3)
        .u32(20, 12)
        .u64(24, DISK)
        .u32(36, 1)
        .u64(40, L1 as u64)
        .u64(48, REFCOUNTS as u64)
        .u32(56, 1)
        .u32(96, 4)
        .u32(100, 104)
        .u64(L1, L2 as u64 | COPIED)
        .u64(REFCOUNTS, 3 * CLUSTER as u64)
        .u64(L2, DATA as u64 | COPIED)
        .u64(L2 + 8, (DATA + CLUSTER) as u64 | COPIED)
}

#[test]
fn a_good_file_is_taken() {
    let content = ByteSize::new(2 * CLUSTER as u64);
    let expected = Inspected { virtual_size: ByteSize::new(DISK), content };
    assert_eq!(whole().inspect().unwrap(), expected);
    assert_eq!(whole().u32(4, 2).inspect().unwrap(), expected, "version 2");
    assert_eq!(whole().extension(0x6803_f857).inspect().unwrap(), expected, "names of features");
    let zero = whole().u64(L2 + 8, 1).inspect().unwrap();
    assert_eq!(zero.content.bytes(), CLUSTER as u64, "a cluster of zeroes holds nothing");
    let packed = whole()
        .u64(L2 + 8, 1 << 62 | (DATA + CLUSTER) as u64)
        .u64(L2 + 16, 1 << 62 | (DATA + CLUSTER + 100) as u64);
    assert_eq!(
        packed.inspect().unwrap().content.bytes(),
        3 * CLUSTER as u64,
        "compressed parts share a cluster"
    );
}

#[test]
fn s7_what_is_hostile_is_refused_with_its_reason() {
    let end = DATA + 2 * CLUSTER;
    let cases: Vec<(&str, Draft, &str)> = vec![
        ("backing file", whole().u64(8, 600).u32(16, 10), "backing file"),
        ("backing file without a name", whole().u64(8, 600), "backing file"),
        ("backing format", whole().extension(0xe279_2aca), "backing file"),
        ("data file, by its feature", whole().u64(72, 4), "another file"),
        ("data file, by its name", whole().extension(0x4441_5441), "another file"),
        ("encryption", whole().u32(32, 1), "encrypted"),
        ("LUKS", whole().u32(32, 2), "encrypted"),
        ("LUKS header", whole().extension(0x0537_be77), "encrypted"),
        ("snapshots", whole().u32(60, 1).u64(64, 0x5000), "1 internal snapshots"),
        ("dirty", whole().u64(72, 1), "dirty"),
        ("corrupt", whole().u64(72, 2), "corrupt"),
        ("extended entries", whole().u64(72, 16), "extended table entries"),
        ("unknown feature", whole().u64(72, 1 << 40), "features"),
        ("unknown compression", whole().u64(72, 8).u32(100, 112).u32(104, 9 << 24), "compression"),
        ("bitmaps", whole().extension(0x2385_2875), "bitmaps"),
        ("unknown extension", whole().extension(0x1234_5678), "0x12345678"),
        ("endless extension", whole().u32(104, 0x6803_f857).u32(108, u32::MAX), "extension"),
        ("version 1", whole().u32(4, 1), "version 1"),
        ("version 4", whole().u32(4, 4), "version 4"),
        ("tiny clusters", whole().u32(20, 8), "2^8"),
        ("huge clusters", whole().u32(20, 63), "2^63"),
        ("short header", whole().u32(100, 96), "a header of 96 bytes"),
        ("long header", whole().u32(100, 1 << 20), "a header of"),
        ("reference counts of 2^7 bits", whole().u32(96, 7), "2^7"),
        ("no disk", whole().u64(24, 0), "1 MiB"),
        ("a disk that is not of sectors", whole().u64(24, DISK - 1), "multiple of 512"),
        ("an endless disk", whole().u64(24, u64::MAX - 511), "64 TiB"),
        ("a disk beyond the first table", whole().u64(24, DISK + 512), "1 entries of the 2"),
        ("a huge first table", whole().u32(36, u32::MAX), "more than"),
        ("a huge table of reference counts", whole().u32(56, u32::MAX), "more than"),
        ("no reference counts", whole().u32(56, 0), "no table of reference counts"),
        ("a first table at an odd place", whole().u64(40, 4097), "where a cluster begins"),
        ("a first table beyond the end", whole().u64(40, end as u64), "the first table would be at"),
        (
            "reference counts beyond the end",
            whole().u64(48, 1 << 40),
            "the table of reference counts would be",
        ),
        ("a block of them beyond the end", whole().u64(REFCOUNTS, end as u64), "reference counts would be"),
        ("a block of them at an odd place", whole().u64(REFCOUNTS, 77), "reference counts at byte 77"),
        ("a second table beyond the end", whole().u64(L1, end as u64 | COPIED), "a second table would be"),
        ("reserved bits in the first table", whole().u64(L1, L2 as u64 | 2), "the first table has the entry"),
        ("data beyond the end", whole().u64(L2, end as u64), "a part of the disk would be"),
        ("compressed data beyond the end", whole().u64(L2, 1 << 62 | end as u64), "a compressed part"),
        ("reserved bits in a second table", whole().u64(L2, DATA as u64 | 4), "a second table has the entry"),
        ("data at an odd place", whole().u64(L2, DATA as u64 + 512), "a second table has the entry"),
        ("the same data twice", whole().u64(L2 + 8, DATA as u64), "twice"),
        ("a table as data", whole().u64(L2 + 8, L2 as u64), "twice"),
        ("the header as data", whole().u64(L2 + 8, 512 << 40), "a part of the disk would be"),
        ("the first table as second", whole().u64(L1, L1 as u64), "twice"),
        ("cut in the data", whole().length(end - 1), "cut short"),
        ("cut in the tables", whole().length(L2 + 100), "cut short"),
        ("cut in the header", whole().length(80), "cut short"),
        ("cut in the first bytes", whole().length(20), "cut short"),
    ];
    for (what, draft, reason) in cases {
        let refusal = draft.inspect().expect_err(what).to_string();
        assert!(refusal.contains(reason), "{what}: {refusal}");
    }
}

/// 2 MiB that 38 KiB claim to be, and one compressed part of the file that is mapped again and again.
#[test]
fn s7_a_bomb_is_refused() {
    let disk: u64 = 256 << 20;
    let tables = usize::try_from(disk / DISK).unwrap();
    let first = DATA / CLUSTER + 2;
    let mut bomb =
        whole().u64(24, disk).u32(36, u32::try_from(tables).unwrap()).length((first + tables) * CLUSTER);
    for table in 0..tables {
        let at = (first + table) * CLUSTER;
        bomb = bomb.u64(L1 + 8 * table, at as u64 | COPIED);
        for entry in 0..CLUSTER / 8 {
            bomb = bomb.u64(at + 8 * entry, 1 << 62 | DATA as u64);
        }
    }
    let refusal = bomb.inspect().unwrap_err();
    assert!(matches!(refusal, Refusal::Ratio { content, .. } if content == disk), "{refusal}");
}

#[test]
fn a_format_that_lies_is_refused_both_ways() {
    let raw = Draft(vec![7; 1 << 20]);
    assert_eq!(inspect(&raw.file(), ImageFormat::Raw).unwrap().virtual_size.bytes(), 1 << 20);
    assert!(raw.inspect().unwrap_err().to_string().contains("declared as qcow2"));
    let qcow2 = inspect(&whole().length(1 << 20).file(), ImageFormat::Raw).unwrap_err();
    assert!(qcow2.to_string().contains("declared as raw, but its first bytes say qcow2"), "{qcow2}");
    for magic in [
        &b"KDMV"[..],
        b"QED\0",
        b"vhdxfile",
        b"conectix",
        b"LUKS\xba\xbe",
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\0",
    ] {
        let mut bytes = magic.to_vec();
        bytes.resize(1 << 20, 0);
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let refusal = inspect(&Draft(bytes.clone()).file(), format).unwrap_err();
            assert!(matches!(refusal, Refusal::OtherFormat { .. }), "{magic:?} {refusal}");
        }
    }
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        assert!(matches!(inspect(&Draft(Vec::new()).file(), format), Err(Refusal::Empty)));
    }
    let small = inspect(&Draft(vec![7; 4096]).file(), ImageFormat::Raw);
    assert!(matches!(small, Err(Refusal::NotADisk { size: 4096 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is changed in a good file: an answer, and what is taken is not larger than what it may be.
    #[test]
    fn any_bytes_have_an_answer(
        changes in prop::collection::vec((0_usize..6 * CLUSTER, any::<u64>()), 0..6),
        fields in prop::collection::vec((0_usize..28, prop::sample::select(vec![0, 1, 2, 9, 12, 21, 512, 4096, 16384, u32::MAX])), 0..6),
        length in 0_usize..8 * CLUSTER,
    ) {
        let mut draft = whole();
        for (at, value) in changes {
            draft = draft.u64(at, value);
        }
        for (field, value) in fields {
            draft = draft.u32(4 * field, value);
        }
        let length = if length < 7 * CLUSTER { length } else { 7 * CLUSTER };
        draft.0[..4].copy_from_slice(b"QFI\xfb");
        if let Ok(inspected) = draft.length(length).inspect() {
            prop_assert!(inspected.content <= inspected.virtual_size);
            prop_assert!(inspected.content.bytes() <= 100 * length as u64);
        }
    }

    #[test]
    fn any_bytes_at_all_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let mut bytes = bytes;
        if bytes.len() > 4 {
            bytes[..4].copy_from_slice(b"QFI\xfb");
        }
        prop_assert!(Draft(bytes).inspect().is_err());
    }
}
