//! An initiator with many commands under way, that tells `Writes` what it sends and what is answered.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::target::Target;
use crate::wire::{Answer as Pdu, Wire, pdu};

use super::random::Random;
use super::writes::{Answer, Content, Id, Kind, Writes};

/// Commands under way in each session.
const DEPTH: usize = 8;

/// The most blocks of a command.
const LONGEST: u64 = 24;

/// Data come in large PDUs, to be read quickly.
pub const KEYS: &[&str] = &["MaxRecvDataSegmentLength=262144"];

/// What may come without being asked for: FirstBurstLength where nothing else is agreed on (RFC 7143 section 13.14).
const FIRST_BURST: usize = 65_536;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Commands of one session at most.
    pub commands: u64,
    /// WRITE SAME and UNMAP, too.
    pub unmap: bool,
    /// Writes in a hundred that ask for durability.
    pub forced: u64,
    /// Commands in a hundred that flush.
    pub flushes: u64,
}

/// A CDB of 16 bytes with a block and a number of blocks.
pub fn sixteen(operation: u8, flags: u8, block: u64, blocks: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (operation, flags);
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[10..14].copy_from_slice(&(blocks as u32).to_be_bytes());
    cdb
}

/// The parameter list of UNMAP (SBC-3 section 5.26).
pub fn unmap_list(ranges: &[Range<u64>]) -> Vec<u8> {
    let described = ranges.len() as u16 * 16;
    let mut list = [(described + 6).to_be_bytes(), described.to_be_bytes(), [0; 2], [0; 2]].concat();
    for range in ranges {
        list.extend(range.start.to_be_bytes());
        list.extend(((range.end - range.start) as u32).to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

/// Sends load from so many sessions until each has sent all of it or, after a pause and `end`, lost its connection.
pub fn run(
    target: &Target,
    writes: &Mutex<Writes>,
    random: &mut Random,
    sessions: u8,
    mix: Mix,
    end: impl FnOnce(),
) {
    let pause = Duration::from_millis(50 + random.below(200));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for isid in 1..=sessions {
            let mut session = Session::log_in(target, writes, random, isid, mix);
            threads.push(scope.spawn(move || session.run()));
        }
        thread::sleep(pause);
        let early = threads.iter().filter(|thread| thread.is_finished()).count();
        end();
        assert_eq!(early, 0, "sessions that ended before the end");
    });
}

/// Turns the write cache off: MODE SELECT (10) of the caching page with WCE 0 (SBC-3 section 6.4.5).
pub fn cache_off(wire: &mut Wire) {
    let mut list = vec![0; 28];
    (list[8], list[9]) = (0x08, 18);
    let mut cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb[8] = list.len() as u8;
    let select = wire.command(3, &cdb, 0xa1, list.len() as u32).data(&list);
    wire.send(&select);
    assert_eq!(wire.answer().unwrap().header[3], 0, "MODE SELECT");
}

/// A command that waits for its answer.
enum Pending {
    Write { ids: Vec<Id>, data: Vec<u8> },
    Flush { sent: u64 },
}

/// One session, and what it has under way.
pub struct Session<'a> {
    wire: Wire,
    writes: &'a Mutex<Writes>,
    random: Random,
    mix: Mix,
    pending: HashMap<u32, Pending>,
    tag: u32,
}

impl<'a> Session<'a> {
    pub fn log_in(
        target: &Target,
        writes: &'a Mutex<Writes>,
        random: &mut Random,
        isid: u8,
        mix: Mix,
    ) -> Self {
        let wire = Wire::log_in_as(isid, target.address, KEYS);
        Self { wire, writes, random: random.fork(), mix, pending: HashMap::new(), tag: 10 }
    }

    /// Sends until all is sent and answered, or the connection is lost.
    pub fn run(&mut self) {
        let mut left = self.mix.commands;
        loop {
            while self.pending.len() < DEPTH && left > 0 {
                left -= 1;
                self.send_any();
            }
            if self.pending.is_empty() {
                return;
            }
            let Some(answer) = self.wire.answer() else { return };
            match answer.header[0] {
                0x31 => self.send_data(&answer),
                0x21 => self.end(&answer),
                other => panic!("an answer of kind {other:x}"),
            }
        }
    }

    fn writes(&self) -> std::sync::MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&mut self, longest: u64) -> Range<u64> {
        let count = 1 + self.random.below(longest);
        let all = self.writes().blocks();
        // Every other one where most others are.
        let end = if self.random.chance(50) { 64 } else { all };
        let first = self.random.below(end - count + 1);
        first..first + count
    }

    fn send_any(&mut self) {
        let forced = self.random.chance(self.mix.forced);
        if self.random.chance(self.mix.flushes) {
            return self.flush();
        }
        match self.random.below(100) {
            0..10 if self.mix.unmap => self.write_same(),
            10..20 if self.mix.unmap => self.unmap(),
            20..32 => self.compare_and_write(forced),
            32..36 if self.mix.forced > 0 => self.write(0x8e, true),
            _ => self.write(0x8a, forced),
        }
    }

    /// WRITE (16), or WRITE AND VERIFY (16), which does not look at the FUA bit.
    fn write(&mut self, operation: u8, forced: bool) {
        let range = self.range(LONGEST);
        let flags = if forced && operation == 0x8a { 0x08 } else { 0 };
        let cdb = sixteen(operation, flags, range.start, range.end - range.start);
        let (id, data) = self.begin(range, Kind::Each, forced);
        self.command(&cdb, Pending::Write { ids: vec![id], data });
    }

    /// WRITE SAME (16), with data or (NDOB, UNMAP) without.
    fn write_same(&mut self) {
        let range = self.range(LONGEST);
        let (kind, flags) = match self.random.below(3) {
            0 => (Kind::Zeros, 0x01),
            1 => (Kind::Zeros, 0x09),
            _ => (Kind::Same, 0),
        };
        let cdb = sixteen(0x93, flags, range.start, range.end - range.start);
        let (id, data) = self.begin(range, kind, false);
        self.command(&cdb, Pending::Write { ids: vec![id], data });
    }

    fn unmap(&mut self) {
        let ranges: Vec<Range<u64>> = (0..=self.random.below(3)).map(|_| self.range(LONGEST)).collect();
        let list = unmap_list(&ranges);
        let ids = ranges.into_iter().map(|range| self.begin(range, Kind::Zeros, false).0).collect();
        let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
        self.command(&cdb, Pending::Write { ids, data: list });
    }

    /// COMPARE AND WRITE with what is certainly there; a plain write where nothing is.
    fn compare_and_write(&mut self, forced: bool) {
        let range = self.range(4);
        let held: Option<Vec<Content>> = range.clone().map(|block| self.writes().certain(block)).collect();
        let Some(held) = held else { return self.write(0x8a, forced) };
        let count = range.end - range.start;
        let mut cdb = sixteen(0x89, if forced { 0x08 } else { 0 }, range.start, 0);
        cdb[13] = count as u8;
        let old = range.clone().zip(held).flat_map(|(block, held)| self.writes().bytes(held, block));
        let old: Vec<u8> = old.collect();
        let (id, new) = self.begin(range, Kind::Each, forced);
        self.command(&cdb, Pending::Write { ids: vec![id], data: [old, new].concat() });
    }

    fn flush(&mut self) {
        let sent = self.writes().flush();
        self.command(&sixteen(0x91, 0, 0, 0), Pending::Flush { sent });
    }

    fn begin(&self, range: Range<u64>, kind: Kind, forced: bool) -> (Id, Vec<u8>) {
        let mut writes = self.writes();
        let id = writes.send(range, kind, forced);
        let data = writes.data(id);
        (id, data)
    }

    fn command(&mut self, cdb: &[u8], pending: Pending) {
        self.tag += 1;
        let data: &[u8] = if let Pending::Write { data, .. } = &pending { data } else { &[] };
        let flags = if data.is_empty() { 0x81 } else { 0xa1 };
        let mut command = self.wire.command(self.tag, cdb, flags, data.len() as u32);
        // All, a part or nothing of the data goes with the command; the target asks for the rest.
        let with = match self.random.below(3) {
            0 => data.len().min(FIRST_BURST),
            1 => data.len() / 2,
            _ => 0,
        };
        command = command.data(&data[..with]);
        self.wire.send(&command);
        self.pending.insert(self.tag, pending);
    }

    /// Answers a Ready To Transfer (RFC 7143 section 11.8).
    fn send_data(&mut self, asked: &Pdu) {
        let Some(Pending::Write { data, .. }) = self.pending.get(&asked.word(16)) else {
            panic!("data are asked for that there are not")
        };
        let (offset, length) = (asked.word(40), asked.word(44) as usize);
        let part = &data[offset as usize..offset as usize + length];
        let out =
            pdu(0x05, 0x80).word(16, asked.word(16)).word(20, asked.word(20)).word(40, offset).data(part);
        self.wire.send(&out);
    }

    fn end(&mut self, response: &Pdu) {
        // The sense key is in byte 2 of fixed sense data, after their length (RFC 7143 section 11.4.7.2).
        let key = response.data.get(4).map(|byte| byte & 0x0f);
        let answer = match (response.header[3], key) {
            (0, _) => Answer::Good,
            // BUSY and TASK SET FULL, UNIT ATTENTION, MISCOMPARE.
            (0x08 | 0x28, _) | (2, Some(0x06 | 0x0e)) => Answer::Refused,
            // MEDIUM ERROR.
            (2, Some(0x03)) => Answer::Failed,
            other => panic!("an unexpected answer: {other:x?}"),
        };
        match self.pending.remove(&response.word(16)) {
            Some(Pending::Write { ids, .. }) => {
                for id in ids {
                    self.writes().answered(id, answer);
                }
            }
            Some(Pending::Flush { sent }) => self.writes().flushed(sent, answer),
            None => panic!("an answer to nothing"),
        }
    }
}
