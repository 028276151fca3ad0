//! Where inputs begin: what initiators do, and what they should not. `cargo run -p bmi-fuzz -- seeds` writes them to
//! `seeds/TARGET/NAME.hex`: a line that says what it is, then lines of hexadecimal bytes.

use std::path::{Path, PathBuf};

use crate::peer::{header, pdu};
use crate::targets::TARGETS;

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Where they are.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// Those that are checked in, by name.
pub fn checked_in(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

/// An input from a file: hexadecimal if its name ends so.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "hex") {
        return std::fs::read(path);
    }
    let text = std::fs::read_to_string(path)?;
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let byte = |at| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| std::io::Error::other(format!("{}: not hexadecimal", path.display())))
}

/// Writes all of them anew.
///
/// # Errors
/// A file cannot be written.
pub fn write() -> std::io::Result<usize> {
    let mut count = 0;
    for target in &TARGETS {
        let folder = folder(target.name);
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            std::fs::remove_file(entry?.path())?;
        }
        for (what, bytes) in of(target.name) {
            count += 1;
            std::fs::write(folder.join(format!("{}.hex", what.replace(' ', "-"))), text(what, &bytes))?;
        }
    }
    Ok(count)
}

fn text(what: &str, bytes: &[u8]) -> String {
    let digits = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<String> = bytes.chunks(48).map(digits).collect();
    format!("# {what}\n{}\n", lines.join("\n"))
}

/// The seeds of a target.
pub fn of(target: &str) -> Seeds {
    match target {
        "pdus" => pdus(),
        "login" => logins(),
        "operations" => operations(),
        _ => cdbs(),
    }
}

fn request(opcode: u8, flags: u8, tag: u32, fields: &[(usize, u32)], cdb: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = header(opcode, flags, tag);
    for (at, value) in fields {
        header[*at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    header[32..32 + cdb.len()].copy_from_slice(cdb);
    pdu(&header, data, (false, false))
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 4, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 4, 0];

fn pdus() -> Seeds {
    let stream = |terms: u8, how: u8, pdus: &[Vec<u8>]| [&[terms, how][..], &pdus.concat()].concat();
    let read = request(1, 0xc0, 1, &[(20, 2048), (24, 3)], &READ, &[]);
    let write = request(1, 0xa0, 2, &[(20, 2048), (24, 3)], &WRITE, &[]);
    let with = request(1, 0xa0, 2, &[(20, 2048), (24, 3)], &WRITE, &[3; 1024]);
    let more = request(1, 0x20, 2, &[(20, 2048), (24, 3)], &WRITE, &[]);
    let out = |ttt: u32, at: u32| request(5, 0x80, 2, &[(20, ttt), (40, at)], &[], &[5; 2048]);
    let abort = request(0x42, 0x81, 9, &[(20, 2), (24, 4)], &[], &[]);
    let text = |flags: u8, ttt: u32| request(4, flags, 5, &[(20, ttt), (24, 3)], &[], b"SendTargets=All\0");
    let ping = request(0x40, 0x80, 8, &[(20, u32::MAX), (24, 3)], &[], &[1; 300]);
    let logout = request(0x46, 0x80, 7, &[(24, 3)], &[], &[]);
    vec![
        ("a read", stream(4, 0x40, std::slice::from_ref(&read))),
        ("reads with digests", stream(7, 0xc0, &[read.clone(), read.clone()])),
        ("a write that is asked for", stream(0x0c, 0x40, &[write.clone(), out(1, 0)])),
        ("a write with immediate data", stream(4, 0x41, &[with, out(1, 1024)])),
        ("a write with unasked data", stream(4, 0x40, &[more, out(u32::MAX, 0)])),
        ("data for a wrong tag", stream(0x0f, 0xc3, &[write.clone(), out(77, 0)])),
        ("an abort", stream(0x84, 0x48, &[read.clone(), write, abort])),
        ("text", stream(4, 0x40, &[text(0x80, u32::MAX)])),
        ("text in discovery", stream(0x40, 0x42, &[text(0x40, u32::MAX), text(0x80, 1)])),
        ("a ping", stream(0x27, 0xc5, std::slice::from_ref(&ping))),
        ("a logout", stream(0x84, 0x58, &[read.clone(), logout])),
        ("a header alone", stream(4, 0x44, &[read[..40].to_vec()])),
        (
            "a segment that is too long",
            stream(4, 0, &[vec![0, 0x80, 0, 0, 0, 0xff, 0xff, 0xff], vec![0; 40]]),
        ),
        ("an unknown opcode", stream(4, 0, &[vec![0x1f; 48], ping])),
    ]
}

fn logins() -> Seeds {
    let login = |how: u8, requests: &[(u8, &[u8])]| {
        let mut bytes = vec![how];
        for (flags, text) in requests {
            bytes.extend([*flags, 0]);
            bytes.extend((text.len() as u16).to_be_bytes());
            bytes.extend(*text);
        }
        bytes
    };
    let names: &[u8] = &[0x80, 0x81, 0x82, 0x84];
    let keys =
        [names, &[0x93, 0x94, 0x95], b"512\0\x96", b"4096\0\x97", b"8192\0\x98No\0\x99Yes\0\x9a8\0"].concat();
    // It claims additional header segments that do not come.
    let mut not_whole = login(0, &[(0x04, &[0x80, 0x81][..]); 64]);
    not_whole.extend([0x04, 1, 4, 0xc4, 0, 0]);
    vec![
        ("one request", login(0, &[(0x87, &[0x80, 0x81, 0x82])])),
        ("two stages", login(0, &[(0x81, &[0x80, 0x81, 0x82, 0x85]), (0x87, &keys[4..])])),
        ("keys", login(0, &[(0x87, &keys)])),
        ("discovery", login(8, &[(0x87, &[0x80, 0x83])])),
        ("CHAP", login(1, &[(0x81, names), (0x81, &[0x86]), (0x81, &[0x89, 0x8b]), (0x87, &[])])),
        ("CHAP with SHA-256", login(1, &[(0, names), (0, &[0x87]), (0x83, &[0x89, 0x8c])])),
        ("CHAP with SHA3-256", login(9, &[(0, names), (0, &[0x88]), (0x83, &[0x89, 0x8d])])),
        ("mutual CHAP", login(3, &[(0, names), (0, &[0x86]), (0x83, &[0x89, 0x8b, 0x90, 0x91])])),
        ("a challenge sent back", login(3, &[(0, names), (0, &[0x86]), (0x83, &[0x89, 0x8b, 0x90, 0x92])])),
        ("a wrong secret", login(1, &[(0, names), (0, &[0x86]), (0x83, &[0x89, 0x8e])])),
        ("a wrong user", login(1, &[(0, names), (0, &[0x86]), (0x83, &[0x8a, 0x8b])])),
        ("CHAP left out", login(1, &[(0x87, &[0x80, 0x81, 0x82])])),
        ("no room", login(4, &[(0x87, &[0x80, 0x81, 0x82])])),
        ("text in parts", login(0, &[(0x44, b"InitiatorName=iqn.2026-01."), (0x87, b"example:node\0\x81")])),
        ("too many requests", login(0, &[(0x04, &[0x80, 0x81][..]); 66])),
        ("one more that is not whole", not_whole),
    ]
}

fn operations() -> Seeds {
    let list =
        |terms: u8, cut: u8, operations: &[[u8; 3]]| [&[terms, cut][..], &operations.concat()].concat();
    let (read, write, whole, pieces) = ([0, 3, 9], [1, 40, 0], [2, 0, 0], [3, 0, 0]);
    let (begin, complete, abort) = ([5, 7, 0], [6, 0, 0], [8, 0, 0]);
    vec![
        ("reads", list(4, 0, &[read, read, begin, complete, complete])),
        ("a write that is asked for", list(0x0c, 3, &[write, whole, begin, complete])),
        ("a write in short bursts", list(0x1f, 9, &[write, pieces, whole, pieces, whole, begin, complete])),
        ("a write with unasked data", list(0x14, 0, &[write, whole, whole, begin, complete])),
        (
            "wrong data",
            list(0x0c, 0, &[write, [4, 0, 0], write, [4, 0, 1], write, [4, 0, 2], write, [4, 0, 4]]),
        ),
        ("an abort while asked for", list(0x0c, 0, &[write, abort, whole])),
        ("an abort while with the disk", list(0x0c, 0, &[read, begin, abort, read, complete, complete])),
        ("a reset of the unit", list(4, 0, &[read, write, begin, [9, 3, 0], complete, complete, read])),
        ("a cold reset", list(4, 0, &[read, begin, [9, 7, 0xff], complete])),
        (
            "faults of the disk",
            list(4, 0, &[read, write, begin, [7, 0, 0], [7, 0, 1], read, begin, [7, 0, 3]]),
        ),
        ("pings and text", list(0x27, 5, &[[10, 80, 0], [11, 0, 1], [11, 0, 0], [13, 0, 0], [12, 0, 0]])),
        ("a logout while busy", list(4, 0, &[read, write, begin, [12, 0, 0xff], complete, complete])),
        ("many writes", list(0x0c, 0, &[[1, 255, 7]; 60])),
        ("a reset from elsewhere", list(0x0f, 0, &[read, write, begin, [14, 0, 0xff], complete, read])),
    ]
}

fn cdbs() -> Seeds {
    let commands = |how: u8, commands: &[(u8, &[u8], u16, &[u8])]| {
        let mut bytes = vec![how];
        for (flags, cdb, length, data) in commands {
            bytes.push(*flags);
            bytes.extend(cdb.iter().copied().chain(std::iter::repeat(0)).take(16));
            bytes.extend(length.to_be_bytes());
            bytes.push(data.len() as u8);
            bytes.extend(*data);
        }
        bytes
    };
    let same = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3];
    let unmap = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 0];
    let register = [&[0; 15][..], &[7], &[0; 8]].concat();
    vec![
        (
            "inquiry",
            commands(0, &[(4, &[0x12, 0, 0, 0, 96], 96, &[]), (4, &[0x12, 1, 0x83, 0, 200], 200, &[])]),
        ),
        (
            "pages",
            commands(0, &[(4, &[0x12, 1, 0xb0, 0, 64], 64, &[]), (5, &[0x12, 1, 0xb2, 0, 64], 64, &[])]),
        ),
        (
            "capacities",
            commands(
                0,
                &[(4, &[0x25], 8, &[]), (5, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], 32, &[])],
            ),
        ),
        ("reads", commands(0, &[(0x14, &READ, 4, &[]), (0x15, &READ, 32, &[]), (0x14, &READ, 2, &[])])),
        (
            "writes",
            commands(4, &[(0x18, &WRITE, 4, b"abc"), (0x19, &WRITE, 32, b"x"), (0x14, &READ, 4, &[])]),
        ),
        ("writes to the other unit", commands(1, &[(0x19, &WRITE, 32, b"abcd"), (0x18, &WRITE, 4, b"x")])),
        (
            "write same",
            commands(0, &[(0x18, &same, 1, b"ab"), (0x18, &same, 1, &[0]), (0x14, &READ, 4, &[])]),
        ),
        ("unmap", commands(4, &[(8, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24], 24, &unmap)])),
        (
            "verify",
            commands(
                0,
                &[
                    (0, &[0x2f, 0, 0, 0, 0, 0, 0, 0, 4], 0, &[]),
                    (0x18, &[0x2f, 2, 0, 0, 0, 0, 0, 0, 4], 4, &[0xa5]),
                ],
            ),
        ),
        (
            "compare and write",
            commands(
                0,
                &[(0x18, &[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 2, &[0xa5]), (0x14, &READ, 4, &[])],
            ),
        ),
        ("or", commands(2, &[(0x18, &[0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], 1, &[0x5a])])),
        (
            "modes",
            commands(
                0,
                &[(4, &[0x1a, 0, 0x3f, 0, 255], 255, &[]), (5, &[0x5a, 0, 8, 0, 0, 0, 0, 1, 0], 256, &[])],
            ),
        ),
        (
            "reservations",
            commands(
                0,
                &[
                    (0, &[0x16], 0, &[]),
                    (0, &[0x17], 0, &[]),
                    (8, &[0x5f, 0, 0, 0, 0, 0, 0, 0, 24], 24, &register),
                    (8, &[0x5f, 1, 1, 0, 0, 0, 0, 0, 24], 24, &[&[0; 7][..], &[7], &[0; 16]].concat()),
                    (4, &[0x5e, 3, 0, 0, 0, 0, 0, 1, 0], 256, &[]),
                ],
            ),
        ),
        (
            "opcodes and extents",
            commands(
                0,
                &[
                    (4, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 8, 0], 2048, &[]),
                    (4, &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 64], 64, &[]),
                ],
            ),
        ),
        (
            "beyond the end",
            commands(
                0,
                &[
                    (0x14, &[0x28, 0, 0, 0, 0, 126, 0, 0, 4], 4, &[]),
                    (0x14, &[0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1], 1, &[]),
                ],
            ),
        ),
        (
            "no such unit",
            commands(
                0,
                &[
                    (6, &[0x12, 0, 0, 0, 96], 96, &[]),
                    (6, &READ, 512, &[]),
                    (6, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], 64, &[]),
                    (6, &[0x03, 0, 0, 0, 18], 18, &[]),
                ],
            ),
        ),
    ]
}
