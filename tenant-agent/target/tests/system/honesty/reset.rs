//! The node loses power: its connection is reset in the middle of a write's data.

use std::sync::Mutex;
use std::time::Duration;

use socket2::SockRef;

use crate::target::Target;
use crate::wire::{Wire, pdu};

use super::load;
use super::look::check;
use super::random::Random;
use super::writes::{Answer, Kind, Loss, Writes};
use super::{BLOCKS, rounds};

const BLOCK_SIZE: usize = 512;

/// Blocks of a write; half of them come with the command.
const LONG: u64 = 64;

/// Sends a part of a write, of any length, and resets the connection (SO_LINGER 0). The write was not answered.
fn send_half(target: &Target, writes: &Mutex<Writes>, random: &mut Random) {
    let mut wire = Wire::log_in(target.address, load::KEYS);
    SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO)).unwrap();
    let first = random.below(BLOCKS - LONG);
    // One that is answered, under the other.
    let (whole, half) = {
        let mut writes = writes.lock().unwrap();
        (
            writes.send(first..first + LONG, Kind::Each, false),
            writes.send(first..first + LONG, Kind::Each, false),
        )
    };
    let data = writes.lock().unwrap().data(whole);
    let cdb = load::sixteen(0x8a, 0, first, LONG);
    let write = wire.command(2, &cdb, 0xa1, data.len() as u32).data(&data);
    wire.send(&write);
    assert_eq!(wire.answer().unwrap().header[3], 0);
    writes.lock().unwrap().answered(whole, Answer::Good);
    let data = writes.lock().unwrap().data(half);
    let (with, rest) = data.split_at(data.len() / 2);
    let write = wire.command(3, &cdb, 0xa1, data.len() as u32).data(with);
    if random.chance(30) {
        let bytes = write.bytes(false, false);
        wire.raw(&bytes[..random.below(bytes.len() as u64) as usize]);
        return;
    }
    wire.send(&write);
    let asked = wire.answer().unwrap();
    let out = pdu(0x05, 0x80).word(16, 3).word(20, asked.word(20)).word(40, with.len() as u32).data(rest);
    let bytes = out.bytes(false, false);
    // Up to the last byte but one: the write is never whole.
    wire.raw(&bytes[..random.below(bytes.len() as u64) as usize]);
}

#[test]
fn t6_a_write_that_a_node_could_not_finish_lands_nowhere_and_those_that_were_answered_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(BLOCKS * BLOCK_SIZE as u64).unwrap();
    let target = Target::with_file(&file, &[]);
    let mut random = Random::new("reset");
    let writes = Mutex::new(Writes::new(random.next(), BLOCKS, BLOCK_SIZE));
    for _ in 0..rounds(60) {
        send_half(&target, &writes, &mut random);
    }
    check(&target, &mut writes.lock().unwrap(), Loss::Process);
}
