//! Long reads, copied or sent from where the file lies, by an initiator that takes its time.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::target::Target;
use crate::wire::{Wire, ten};

const MIB: usize = 1024 * 1024;

/// Bytes that are nowhere the same for long.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 512) as u8 ^ (at / 131_072) as u8 ^ at as u8).collect()
}

/// Asks for all of 16 MiB before it takes anything: no socket holds that much.
fn read_all(wire: &mut Wire, wanted: &[u8]) {
    let blocks = MIB / 512;
    for itt in 0..wanted.len() / MIB {
        let cdb = ten(0x28, (itt * blocks) as u32, blocks as u16);
        let read = wire.command(itt as u32, &cdb, 0xc0, MIB as u32);
        wire.send(&read);
    }
    thread::sleep(Duration::from_millis(200));
    let mut got = vec![0; wanted.len()];
    let mut statuses = 0;
    while statuses < wanted.len() / MIB {
        let answer = wire.answer().expect("data");
        assert_eq!(answer.header[0], 0x25);
        let start = answer.word(16) as usize * MIB + answer.word(40) as usize;
        got[start..start + answer.data.len()].copy_from_slice(&answer.data);
        statuses += usize::from(answer.header[1] & 1);
    }
    assert!(got == wanted);
}

#[test]
fn an_initiator_that_takes_its_time_gets_every_byte() {
    let wanted = pattern(16 * MIB);
    for place in ["/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        let file = tempfile::NamedTempFile::new_in(place).unwrap();
        fs::write(file.path(), &wanted).unwrap();
        let target = Target::with_file(file.path(), &["--sessions", "one"]);
        for keys in [
            &["MaxRecvDataSegmentLength=262144"][..],
            &["MaxRecvDataSegmentLength=8192", "MaxBurstLength=12288"],
            &["MaxRecvDataSegmentLength=65536", "HeaderDigest=CRC32C"],
            &["MaxRecvDataSegmentLength=65536", "HeaderDigest=CRC32C", "DataDigest=CRC32C"],
        ] {
            read_all(&mut Wire::log_in(target.address, keys), &wanted);
        }
        target.stop();
    }
}

#[test]
fn a_file_that_lost_its_end_ends_the_session_and_not_the_target() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    fs::write(file.path(), pattern(2 * MIB)).unwrap();
    let target = Target::with_file(file.path(), &["--sessions", "one"]);
    let keys = ["MaxRecvDataSegmentLength=262144"];
    let mut wire = Wire::log_in(target.address, &keys);
    file.as_file().set_len(MIB as u64).unwrap();
    let read = wire.command(5, &ten(0x28, 2048, 512), 0xc0, 262_144);
    wire.send(&read);
    assert!(wire.answer().is_none(), "what is not there is not answered with anything");
    let mut again = Wire::log_in(target.address, &keys);
    let read = again.command(6, &ten(0x28, 0, 512), 0xc0, 262_144);
    again.send(&read);
    assert_eq!(again.answer().expect("the rest is there").data, pattern(262_144));
}
