//! Lists of operations of an initiator that knows what the target wants, and does it or something else, while the disk
//! takes and ends its work in any order.
//!
//! The first byte is the terms of [`Peer::log_in`], the second how many bytes come at a time. Then operations of three
//! bytes each: which, and two that choose.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bmi_iscsi::Fault;

use crate::input::Input;
use crate::peer::{NO_TAG, Peer, header, unit};
use crate::trace::Trace;

/// The most operations of one input.
const OPERATIONS_MAX: usize = 512;

/// Commands without data, or with some that are read: INQUIRY and its like.
const PLAIN: [u8; 8] = [0x00, 0x12, 0x03, 0x25, 0x35, 0x1a, 0xa0, 0x16];

/// A command without an answer.
#[derive(Default)]
struct Waiting {
    reads: usize,
    writes: usize,
    come: usize,
    /// Transfer tag, offset and length of R2Ts.
    asked: VecDeque<(u32, usize, usize)>,
}

struct Initiator {
    peer: Peer,
    waiting: BTreeMap<u32, Waiting>,
    /// ABORT TASK: whom each is about.
    aborts: BTreeMap<u32, u32>,
    ended: BTreeSet<u32>,
    /// Many commands were ended at once, without a word about each.
    swept: bool,
    tag: u32,
    number: u32,
    first_burst: usize,
    immediate: bool,
    follows: bool,
}

pub fn run(bytes: &[u8]) -> Trace {
    let mut input = Input::new(bytes);
    // No discovery here, and the disk always waits.
    let terms = input.byte() & 0xbf | 0x80;
    let cut = usize::from(input.byte());
    let mut peer = Peer::new(vec![unit(0, 512, 1 << 20, false), unit(1, 4096, 64, true)], false);
    let number = peer.log_in(terms);
    peer.cut = if cut == 0 { usize::MAX } else { cut * 16 };
    peer.segment = Some(if terms & 0x20 != 0 { 512 } else { 65_536 });
    let mut initiator = Initiator {
        peer,
        waiting: BTreeMap::new(),
        aborts: BTreeMap::new(),
        ended: BTreeSet::new(),
        swept: false,
        tag: 0,
        number,
        first_burst: if terms & 0x10 != 0 { 4096 } else { 262_144 },
        immediate: terms & 4 != 0,
        follows: terms & 8 == 0,
    };
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        initiator.perform(input.byte(), input.byte(), input.byte());
    }
    // Whatever the disk still has is done; nothing of it may be answered twice.
    initiator.peer.begin(usize::MAX);
    while !initiator.peer.held.is_empty() {
        initiator.peer.complete(0, None);
        initiator.look();
        initiator.peer.begin(usize::MAX);
    }
    initiator.peer.trace
}

impl Initiator {
    fn perform(&mut self, operation: u8, a: u8, b: u8) {
        let which = usize::from(a);
        match operation % 20 {
            0 | 16 => self.read(a & 0x80 != 0, u16::from(a & 0x0f) * 16 + 1, u32::from(b)),
            1 | 17 => self.write(u16::from(a) * if b & 7 == 7 { 4 } else { 1 } + 1, b),
            2 | 18 => self.answer(which, 0),
            3 => self.answer(which, 1),
            4 => self.answer(which, 2 + b % 5),
            5 | 19 => self.peer.begin(1 + which % 8),
            6 => self.peer.complete(which, None),
            7 => {
                let faults = [Fault::NoSpace, Fault::Read, Fault::Write, Fault::ReadOnly];
                self.peer.complete(which, Some(faults[usize::from(b) % 4]));
            }
            8 => self.abort(which),
            9 => self.sweep(if b < 0xf0 { 2 + a % 4 } else { a % 16 }, NO_TAG, b & 1),
            10 => self.request(0x40, 0x80, &vec![1; which * 8]),
            11 => {
                let continues = b & 1 != 0;
                self.request(0x04, if continues { 0x40 } else { 0x80 }, b"SendTargets=\0");
            }
            12 if b >= 0xc0 => {
                self.swept = true;
                self.request(0x46, 0x80 | a & 3, &[]);
            }
            12 => self.request(0x00, 0x80, &[]),
            13 => {
                self.peer.target.ping();
                self.peer.drive(48);
            }
            14 if b >= 0xc0 => {
                self.swept = true;
                self.peer.target.reset((a & 1 == 0).then_some(0));
                self.peer.drive(48);
            }
            14 | 15 => {
                let mut cdb = [0; 16];
                (cdb[0], cdb[4]) = (PLAIN[which % 8], b);
                self.command(b & 1, &cdb, 0xc0, usize::from(b), 0, &[]);
            }
            _ => {}
        }
        self.look();
    }

    fn header(&mut self, opcode: u8, flags: u8) -> [u8; 48] {
        self.tag += 1;
        let mut header = header(opcode, flags, self.tag);
        header[20..24].fill(0xff);
        header[24..28].copy_from_slice(&self.number.to_be_bytes());
        if opcode & 0x40 == 0 {
            self.number = self.number.wrapping_add(1);
        }
        header
    }

    fn request(&mut self, opcode: u8, flags: u8, data: &[u8]) {
        let header = self.header(opcode, flags);
        self.peer.send(&header, data);
    }

    fn command(&mut self, lun: u8, cdb: &[u8; 16], flags: u8, reads: usize, writes: usize, data: &[u8]) {
        // A command outside the window is ignored, and its number would be missing: let it be immediate.
        let immediate = self.waiting.len() >= 100;
        let mut header = self.header(if immediate { 0x41 } else { 0x01 }, flags);
        header[9] = lun;
        header[20..24].copy_from_slice(&((reads + writes) as u32).to_be_bytes());
        header[32..].copy_from_slice(cdb);
        self.waiting.insert(self.tag, Waiting { reads, writes, ..Waiting::default() });
        self.peer.send(&header, data);
    }

    fn read(&mut self, other_unit: bool, blocks: u16, at: u32) {
        let size = if other_unit { 4096 } else { 512 };
        let cdb = ten(0x28, at, blocks);
        self.command(u8::from(other_unit), &cdb, 0xc0, usize::from(blocks) * size, 0, &[]);
    }

    /// With what may be sent unasked, or a little more.
    fn write(&mut self, blocks: u16, how: u8) {
        let length = usize::from(blocks) * 512;
        let unasked = length.min(self.first_burst) + if how >= 0xf8 { 512 } else { 0 };
        let with = if self.immediate { unasked.min(1024) } else { 0 };
        let follows = self.follows && with < unasked;
        let cdb = ten(0x2a, u32::from(how) * 1024, blocks);
        self.command(0, &cdb, if follows { 0x20 } else { 0xa0 }, 0, length, &vec![how; with]);
        if follows && how & 2 == 0 {
            let tag = self.tag;
            self.data_out(tag, NO_TAG, 0, with, unasked - with, true);
            if how >= 0xf8 {
                self.must_have_ended(tag);
            }
        }
    }

    fn data_out(&mut self, tag: u32, ttt: u32, number: u32, at: usize, count: usize, last: bool) {
        let mut out = header(0x05, if last { 0x80 } else { 0 }, tag);
        for (place, value) in [(20, ttt), (36, number), (40, at as u32)] {
            out[place..place + 4].copy_from_slice(&value.to_be_bytes());
        }
        self.peer.send(&out, &vec![tag as u8; count.min(262_144)]);
    }

    /// Answers the oldest R2T of a command: whole (0), in pieces (1), or wrong.
    fn answer(&mut self, which: usize, how: u8) {
        let asked: Vec<u32> =
            self.waiting.iter().filter(|(_, one)| !one.asked.is_empty()).map(|(tag, _)| *tag).collect();
        if asked.is_empty() {
            return;
        }
        let tag = asked[which % asked.len()];
        let Some((ttt, at, count)) = self.waiting.get_mut(&tag).and_then(|one| one.asked.pop_front()) else {
            return;
        };
        match how {
            0 | 1 => {
                // No segment is longer than the target takes.
                let size = if how == 0 { 262_144 } else { count.div_ceil(3).next_multiple_of(4) };
                for (piece, start) in (0..count).step_by(size).enumerate() {
                    let part = size.min(count - start);
                    self.data_out(tag, ttt, piece as u32, at + start, part, start + part == count);
                }
            }
            2 => self.data_out(tag, ttt ^ 0x4000_0000, 0, at, count, true),
            3 => self.data_out(tag, ttt, 0, at + 512, count - 512, true),
            4 => self.data_out(tag, ttt, 0, at, count - 1, true),
            5 => self.data_out(tag, ttt, 3, at, count, true),
            _ => self.data_out(tag, ttt, 0, at, count + 4, true),
        }
        if how > 1 {
            self.must_have_ended(tag);
        }
    }

    /// Wrong data end the command they are for (RFC 7143 section 7.9), or the session.
    fn must_have_ended(&mut self, tag: u32) {
        self.look();
        let ended = !self.waiting.contains_key(&tag) || self.peer.target.closing().is_some();
        assert!(ended || self.swept, "{tag} has had wrong data and is still waiting");
    }

    fn abort(&mut self, which: usize) {
        let tags: Vec<u32> = self.waiting.keys().copied().chain([0x00ff_0000]).collect();
        let tag = tags[which % tags.len()];
        self.aborts.insert(self.tag + 1, tag);
        self.manage(1, tag, 0);
    }

    fn sweep(&mut self, function: u8, referenced: u32, lun: u8) {
        self.swept = true;
        self.manage(function, referenced, lun);
    }

    fn manage(&mut self, function: u8, referenced: u32, lun: u8) {
        let mut header = self.header(0x42, 0x80 | function);
        header[9] = lun;
        header[20..24].copy_from_slice(&referenced.to_be_bytes());
        self.peer.send(&header, &[]);
    }

    /// Looks at what came: only what waits is answered, once.
    fn look(&mut self) {
        for answer in std::mem::take(&mut self.peer.answers) {
            let (opcode, tag) = (answer.header[0], answer.word(16));
            if opcode == 0x22
                && answer.header[2] == 0
                && let Some(tag) = self.aborts.remove(&tag)
            {
                self.waiting.remove(&tag);
                self.ended.insert(tag);
            }
            if !matches!(opcode, 0x21 | 0x25 | 0x31) {
                continue;
            }
            assert!(!self.ended.contains(&tag), "{opcode:x} for {tag}, which has ended");
            let one = self.waiting.get_mut(&tag).unwrap_or_else(|| panic!("{opcode:x} for {tag}: who?"));
            if opcode == 0x31 {
                let (at, count) = (answer.word(40) as usize, answer.word(44) as usize);
                assert!(count > 0 && at + count <= one.writes, "more is asked for than there is");
                one.asked.push_back((answer.word(20), at, count));
                assert!(one.asked.len() <= 8, "too many R2Ts");
            }
            if opcode == 0x25 {
                assert_eq!(answer.word(40) as usize, one.come, "the place of Data-In");
                one.come += answer.data.len();
                assert!(one.come <= one.reads, "more data than there is room for");
            }
            if opcode == 0x21 || opcode == 0x25 && answer.header[1] & 1 != 0 {
                self.waiting.remove(&tag);
                self.ended.insert(tag);
            }
        }
    }
}

fn ten(operation: u8, block: u32, blocks: u16) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = operation;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
