//! Power is lost in the middle of writes: with the target, or of the store alone.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::target::Target;
use crate::wire::Wire;

use super::load::{self, Mix};
use super::look::check;
use super::mount::Mount;
use super::random::Random;
use super::store::{Forced, Store};
use super::writes::{Answer, Kind, Loss, Writes};
use super::{BLOCKS, rounds};

/// More than can be sent before the end.
const MIX: Mix = Mix { commands: 1_000_000, unmap: true, forced: 30, flushes: 8 };

/// With the write cache off nothing asks for durability by itself.
const THROUGH: Mix = Mix { forced: 0, ..MIX };

/// Sessions side by side.
const SESSIONS: u8 = 3;

/// How the target has the store.
#[derive(Debug, Clone, Copy)]
enum By {
    Nbd,
    File,
    FileDirect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    On,
    Off,
}

fn nbd(store: &Store) -> String {
    format!("0=nbd+unix:///disk?socket={}", store.socket().display())
}

/// Target and disk lose power again and again. Returns how many blocks were in the cache then.
fn lose_power_and_look(by: By, block_size: usize, forced: Forced, cache: Cache, few: u64) -> usize {
    let purpose = format!("{by:?}, {block_size} bytes, FUA {forced:?}, cache {cache:?}");
    let mut random = Random::new(&purpose);
    let writes = Mutex::new(Writes::new(random.next(), BLOCKS, block_size));
    let store = Store::start(BLOCKS, block_size, forced, random.fork());
    let size = block_size.to_string();
    let mut lost = 0;
    for round in 0..rounds(few) {
        let mut mount = match by {
            By::Nbd => None,
            By::File | By::FileDirect => Some(Mount::start(&store, BLOCKS * block_size as u64)),
        };
        let lun = match (&mount, by) {
            (Some(mount), By::File) => format!("0=file:{}", mount.file().display()),
            (Some(mount), _) => format!("0=file:{},direct", mount.file().display()),
            (None, _) => nbd(&store),
        };
        let arguments = ["--lun", &lun, "--block-size", &size];
        let mut target = Target::start(&arguments);
        if cache == Cache::Off {
            load::cache_off(&mut Wire::log_in(target.address, &[]));
            writes.lock().unwrap().write_through = true;
        }
        let before = writes.lock().unwrap().acknowledged;
        let running = target.process();
        // In every other round nothing but flushes makes anything durable: what is forced may take the rest with it.
        let mix = match cache {
            Cache::Off => THROUGH,
            Cache::On if round % 2 == 1 => Mix { forced: 0, flushes: 2, ..MIX },
            Cache::On => MIX,
        };
        load::run(&target, &writes, &mut random, SESSIONS, mix, || {
            if let Some(mount) = &mut mount {
                mount.kill();
            }
            running.kill();
        });
        target.wait();
        assert!(writes.lock().unwrap().acknowledged > before + 20, "hardly anything was written");
        lost += store.unflushed();
        store.lose_power();
        // Not by way of the file: the kernel still has its pages.
        let lun = nbd(&store);
        let arguments = ["--lun", &lun, "--block-size", &size];
        check(&Target::start(&arguments), &mut writes.lock().unwrap(), Loss::Power);
    }
    let acknowledged = writes.lock().unwrap().acknowledged;
    eprintln!("{purpose}: {acknowledged} writes acknowledged, {lost} blocks were not flushed");
    lost
}

#[test]
fn t6_durable_writes_survive_power_loss() {
    let lost = lose_power_and_look(By::Nbd, 512, Forced::Known, Cache::On, 4)
        + lose_power_and_look(By::Nbd, 4096, Forced::Unknown, Cache::On, 4);
    assert!(lost > 0, "nothing was lost: nothing was tried");
}

#[test]
fn t6_every_write_survives_power_loss_when_the_write_cache_is_off() {
    lose_power_and_look(By::Nbd, 512, Forced::Known, Cache::Off, 3);
    lose_power_and_look(By::Nbd, 4096, Forced::Unknown, Cache::Off, 3);
}

#[test]
fn t6_durable_writes_survive_power_loss_of_a_file() {
    let lost = lose_power_and_look(By::File, 512, Forced::Known, Cache::On, 3)
        + lose_power_and_look(By::FileDirect, 4096, Forced::Known, Cache::On, 3);
    assert!(lost > 0, "nothing was lost: nothing was tried");
    lose_power_and_look(By::File, 4096, Forced::Known, Cache::Off, 1);
    lose_power_and_look(By::FileDirect, 512, Forced::Known, Cache::Off, 1);
}

/// The target lives on: it is connected to the store again, sends what was not answered once more, and tells of a possible
/// loss at the next flush, so that no flush is good that should have covered what is gone.
#[test]
fn t6_no_flush_is_good_that_covers_what_a_store_lost_under_a_living_target() {
    for forced in [Forced::Known, Forced::Unknown] {
        let mut random = Random::new(&format!("a store alone, FUA {forced:?}"));
        let writes = Mutex::new(Writes::new(random.next(), BLOCKS, 512));
        let store = Store::start(BLOCKS, 512, forced, random.fork());
        let lun = nbd(&store);
        let mut target = Target::start(&["--lun", &lun]);
        let running = target.process();
        // One session: in more, a flush could fail for one and the next be good for another that did not hear of it.
        load::run(&target, &writes, &mut random, 1, MIX, || {
            for _ in 0..rounds(10) {
                thread::sleep(Duration::from_millis(30));
                store.lose_power();
            }
            running.kill();
        });
        target.wait();
        store.lose_power();
        check(&Target::start(&["--lun", &lun]), &mut writes.lock().unwrap(), Loss::Power);
        eprintln!("{} writes acknowledged", writes.lock().unwrap().acknowledged);
    }
}

/// An UNMAP of two ranges is two requests to the store, which loses power after the first. Somebody else is told first.
#[test]
fn t6_an_unmap_that_a_store_lost_a_part_of_is_not_good() {
    let mut random = Random::new("an UNMAP in two parts");
    let mut writes = Writes::new(random.next(), BLOCKS, 512);
    let store = Store::start(BLOCKS, 512, Forced::Known, random.fork());
    let lun = nbd(&store);
    let target = Target::start(&["--lun", &lun]);
    let mut wire = Wire::log_in(target.address, load::KEYS);
    for round in 0..rounds(8) {
        let first = (round % 64) * 8;
        let ask = |wire: &mut Wire, tag, cdb: &[u8], data: &[u8]| {
            let flags = if data.is_empty() { 0x81 } else { 0xa1 };
            let command = wire.command(tag, cdb, flags, data.len() as u32).data(data);
            wire.send(&command);
        };
        // Something durable to be unmapped.
        let before = writes.send(first..first + 8, Kind::Each, true);
        ask(&mut wire, 10, &load::sixteen(0x8a, 8, first, 8), &writes.data(before));
        assert_eq!(wire.answer().unwrap().header[3], 0);
        writes.answered(before, Answer::Good);
        store.lose_power_at_zeros();
        let parts = [first..first + 4, first + 4..first + 8];
        let unmap = parts.clone().map(|range| writes.send(range, Kind::Zeros, false));
        ask(&mut wire, 11, &[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &load::unmap_list(&parts));
        let forced = writes.send(900..901, Kind::Each, true);
        ask(&mut wire, 12, &load::sixteen(0x8a, 8, 900, 1), &writes.data(forced));
        for _ in 0..2 {
            let answer = wire.answer().unwrap();
            let good = if answer.header[3] == 0 { Answer::Good } else { Answer::Failed };
            match answer.word(16) {
                11 => unmap.iter().for_each(|id| writes.answered(*id, good)),
                _ => writes.answered(forced, good),
            }
        }
        let sent = writes.flush();
        ask(&mut wire, 13, &load::sixteen(0x91, 0, 0, 0), &[]);
        let good = wire.answer().unwrap().header[3] == 0;
        writes.flushed(sent, if good { Answer::Good } else { Answer::Failed });
    }
    store.lose_power();
    check(&target, &mut writes, Loss::Power);
}
