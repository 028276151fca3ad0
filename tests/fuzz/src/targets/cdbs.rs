//! Commands to disks in memory, which do all work at once.
//!
//! The first byte: 01 the unit with blocks of 512 bytes is read-only, otherwise the one with 4096; 02 data digests; 04
//! immediate data. Then commands: flags (03 the unit, 04 reads, 08 writes, 10 the length counts blocks of 512); the CDB,
//! 16 bytes; the expected length, 2 bytes; how many bytes of data follow; those, which are repeated to that length.

use crate::input::Input;
use crate::peer::{Peer, header, unit};
use crate::trace::Trace;

/// The longest data of a command here.
const LENGTH_MAX: usize = 128 * 1024;

/// The most commands of one input.
const COMMANDS_MAX: u32 = 64;

pub fn run(bytes: &[u8]) -> Trace {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let first_is_read_only = how & 1 != 0;
    let units = vec![unit(0, 512, 128, first_is_read_only), unit(1, 4096, 24, !first_is_read_only)];
    let mut peer = Peer::new(units, false).with_disks();
    peer.segment = Some(65_536);
    let immediate = how & 4 != 0;
    let mut number = peer.log_in(0x08 | how & 0x06);
    let last = number + COMMANDS_MAX;
    while !input.is_empty() && number < last && peer.target.closing().is_none() {
        let flags = input.byte();
        let (reads, writes) = (flags & 4 != 0, flags & 8 != 0);
        let mut command =
            header(0x01, 0x80 | if reads { 0x40 } else { 0 } | if writes { 0x20 } else { 0 }, number);
        command[9] = flags & 3;
        let cdb = input.take(16);
        command[32..32 + cdb.len()].copy_from_slice(cdb);
        let unit = if flags & 0x10 != 0 { 512 } else { 1 };
        let length = (usize::from(input.short()) * unit).min(LENGTH_MAX);
        let count = usize::from(input.byte());
        let pattern = input.take(count);
        let pattern = if pattern.is_empty() { &[0][..] } else { pattern };
        let data: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
        command[20..24].copy_from_slice(&(length as u32).to_be_bytes());
        command[24..28].copy_from_slice(&number.to_be_bytes());
        let with = if writes && immediate { length.min(1000) } else { 0 };
        peer.send(&command, &data[..with]);
        finish(&mut peer, number, &data, if reads { length } else { 0 });
        number += 1;
    }
    let read_only = usize::from(!first_is_read_only);
    assert!(peer.disks[read_only].iter().all(|byte| *byte == 0xa5), "a unit that is read-only has changed");
    peer.trace
}

/// Answers R2Ts until the command is answered, once.
fn finish(peer: &mut Peer, tag: u32, data: &[u8], room: usize) {
    let (mut statuses, mut come) = (0, 0);
    while !peer.answers.is_empty() {
        for answer in std::mem::take(&mut peer.answers) {
            match answer.header[0] {
                0x31 => {
                    let (at, count) = (answer.word(40) as usize, answer.word(44) as usize);
                    assert!(count > 0 && at + count <= data.len(), "more is asked for than there is");
                    let mut out = header(0x05, 0x80, tag);
                    out[20..24].copy_from_slice(&answer.header[20..24]);
                    out[40..44].copy_from_slice(&answer.header[40..44]);
                    peer.send(&out, &data[at..at + count]);
                }
                0x25 => {
                    assert_eq!(answer.word(40) as usize, come, "the place of Data-In");
                    come += answer.data.len();
                    statuses += usize::from(answer.header[1] & 1);
                }
                0x21 => statuses += 1,
                // TASK ABORTED and the like are for other targets.
                opcode => assert_eq!(opcode, 0x3f, "an answer to a command"),
            }
            assert_eq!(answer.word(16), tag, "an answer to something else");
            assert!(come <= room, "{come} bytes for a room of {room}");
        }
    }
    assert!(statuses == 1 || peer.target.closing().is_some(), "{statuses} answers");
}
