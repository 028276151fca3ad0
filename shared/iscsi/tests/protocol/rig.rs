//! An initiator that keeps the rules and watches whether the target does: each command is answered once unless it was
//! aborted, StatSN grows by one (RFC 7143 section 4.2.2.2), MaxCmdSN never goes back, data are whole and in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bmi_iscsi::{CloseReason, Connection, Event, Outcome, Outgoing, Seed, TargetState, TaskId, Work};

use crate::pair::{INITIATOR, TARGET, config, ten};

pub const BLOCK: usize = 512;

/// Every write has as many blocks of the disk for itself: the longest there may be, 4 MiB.
pub const BLOCKS_MAX: usize = 8192;

/// As many writes have room on the disk.
pub const WRITES_MAX: usize = 64;

/// The longest data segment the target takes (RFC 7143 section 13.12), and here the longest burst.
const LONG_BURST: usize = 262_144;

/// As negotiated below: small, so that many sequences and segments are needed.
const SHORT_BURST: usize = 8192;
const FIRST_BURST: usize = 4096;
const SEGMENT: usize = 3000;

/// What a request may leave to be sent, in bytes: a piece of a READ, or an echo, and headers.
const OUTGOING_MAX: usize = 256 * 1024 + 32 * 1024;

/// Bytes that R2Ts of a session may ask for before they come.
const PROMISES_MAX: usize = 16 * 1024 * 1024;

/// In the flags of a command here: it is sent with the I bit (RFC 7143 section 11.2.1.1). Reserved on the wire.
const IMMEDIATE: u8 = 0x10;

const NO_TAG: u32 = u32::MAX;

/// How an R2T is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    Whole,
    InPieces,
    OtherTag,
    OtherPlace,
    Short,
    Damaged,
}

/// A command without an answer.
#[derive(Debug, Default)]
struct Waiting {
    lun: u8,
    /// Bytes it reads, and how many have come.
    reads: usize,
    come: usize,
    /// Bytes it writes, and how many were sent.
    writes: usize,
    sent: usize,
    /// May fail.
    spoiled: bool,
    /// Transfer tag, offset and length of R2Ts.
    asked: VecDeque<(u32, usize, usize)>,
}

/// What is negotiated, and how the bytes arrive.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub digests: bool,
    pub immediate_data: bool,
    pub initial_r2t: bool,
    pub long_bursts: bool,
    /// Bytes a time.
    pub cut: usize,
}

pub struct Rig {
    target: Connection,
    digests: bool,
    terms: Terms,
    waiting: BTreeMap<u32, Waiting>,
    aborted: BTreeSet<u32>,
    held: Vec<(TaskId, Work)>,
    /// The commands that write, in the order of their places on the disk.
    writers: Vec<u32>,
    /// Tags of requests that are no commands.
    plain: BTreeSet<u32>,
    rejected_aborts: BTreeSet<u32>,
    logged_out: bool,
    unsent: Vec<u8>,
    next_tag: u32,
    cmd_sn: u32,
    max_cmd_sn: u32,
    stat_sn: u32,
}

impl Rig {
    pub fn new(terms: Terms) -> Self {
        let seed = Seed { chap_identifier: 1, chap_challenge: [0; 16], portal: "192.0.2.1:3260".into() };
        let mut config = config();
        config.units[0].blocks = (WRITES_MAX * BLOCKS_MAX) as u64;
        let state = TargetState::new(&config);
        let mut rig = Self {
            target: Connection::new(Arc::new(config), state, seed, Instant::now()),
            digests: false,
            terms,
            waiting: BTreeMap::new(),
            aborted: BTreeSet::new(),
            held: Vec::new(),
            writers: Vec::new(),
            plain: BTreeSet::from([0]),
            rejected_aborts: BTreeSet::new(),
            logged_out: false,
            unsent: Vec::new(),
            next_tag: 0,
            cmd_sn: 1,
            max_cmd_sn: 1,
            stat_sn: 1,
        };
        let yes = |yes| if yes { "Yes" } else { "No" };
        let digest = if terms.digests { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName={INITIATOR}\0TargetName={TARGET}\0SessionType=Normal\0HeaderDigest={digest}\0\
             DataDigest={digest}\0InitialR2T={}\0ImmediateData={}\0FirstBurstLength={FIRST_BURST}\0\
             MaxBurstLength={}\0MaxOutstandingR2T=2\0MaxRecvDataSegmentLength={SEGMENT}\0",
            yes(terms.initial_r2t),
            yes(terms.immediate_data),
            if terms.long_bursts { LONG_BURST } else { SHORT_BURST },
        );
        let mut login = rig.header(0x43, 0x87, 0);
        login[24..28].copy_from_slice(&1_u32.to_be_bytes());
        rig.send(&login, text.as_bytes());
        assert!(rig.target.established());
        rig.digests = terms.digests;
        for lun in 0..2 {
            rig.command(lun, &[0; 6], 0x80, 0, 0, &[]);
        }
        rig
    }

    fn may_send(&self) -> bool {
        self.cmd_sn.wrapping_sub(self.max_cmd_sn).cast_signed() <= 0
    }

    fn tag(&mut self) -> u32 {
        self.next_tag += 1;
        self.next_tag
    }

    fn header(&mut self, opcode: u8, flags: u8, tag: u32) -> [u8; 48] {
        let mut header = [0; 48];
        header[0] = opcode;
        header[1] = flags;
        header[16..20].copy_from_slice(&tag.to_be_bytes());
        header[20..24].fill(0xff);
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        if opcode & 0x40 == 0 && opcode != 0x05 {
            self.cmd_sn += 1;
        }
        header
    }

    fn command(&mut self, lun: u8, cdb: &[u8], flags: u8, reads: usize, writes: usize, data: &[u8]) {
        let immediate = flags & IMMEDIATE != 0;
        let flags = flags & !IMMEDIATE;
        let tag = self.tag();
        let mut header = self.header(if immediate { 0x41 } else { 0x01 }, flags, tag);
        header[9] = lun;
        header[20..24].copy_from_slice(&((reads + writes) as u32).to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.waiting.insert(
            tag,
            Waiting {
                lun,
                reads,
                writes,
                sent: data.len(),
                spoiled: reads + writes == 0,
                ..Waiting::default()
            },
        );
        self.send(&header, data);
    }

    pub fn read(&mut self, blocks: usize, immediate: bool) {
        // Immediate commands beyond the window are eight.
        let room = self.waiting.len() + self.aborted.len() < 100;
        if self.may_send() && room {
            let flags = if immediate { 0xc0 | IMMEDIATE } else { 0xc0 };
            self.command(0, &ten(0x28, 0, blocks as u16), flags, blocks * BLOCK, 0, &[]);
        }
    }

    /// A read that fails at once.
    pub fn read_nothing(&mut self) {
        if self.may_send() {
            self.command(1, &ten(0x28, u32::MAX, 1), 0xc0, 0, 0, &[]);
        }
    }

    /// With as much data as may be sent at once.
    pub fn write(&mut self, blocks: usize) {
        if !self.may_send() {
            return;
        }
        let (tag, length) = (self.next_tag + 1, blocks * BLOCK);
        let cdb = ten(0x2a, (self.writers.len() * BLOCKS_MAX) as u32, blocks as u16);
        self.writers.push(tag);
        let unasked = length.min(FIRST_BURST);
        let with = if self.terms.immediate_data { unasked.min(1024) } else { 0 };
        let follows = !self.terms.initial_r2t && with < unasked;
        let flags = if follows { 0x20 } else { 0xa0 };
        self.command(0, &cdb, flags, 0, length, &pattern(tag, 0, with));
        if follows {
            self.data_out(tag, NO_TAG, 0, with, unasked - with, true, false);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a Data-Out")]
    fn data_out(&mut self, tag: u32, ttt: u32, number: u32, at: usize, count: usize, last: bool, bad: bool) {
        let mut header = self.header(0x05, if last { 0x80 } else { 0 }, tag);
        for (place, value) in [(20, ttt), (36, number), (40, at as u32)] {
            header[place..place + 4].copy_from_slice(&value.to_be_bytes());
        }
        if let Some(waiting) = self.waiting.get_mut(&tag) {
            waiting.sent = at + count;
        }
        let mut bytes = self.pdu(&header, &pattern(tag, at, count));
        if bad {
            *bytes.last_mut().unwrap() ^= 1;
        }
        self.feed(&bytes);
    }

    /// Answers the oldest R2T of one of the writes.
    pub fn answer(&mut self, which: usize, how: Data) {
        let asked: Vec<u32> =
            self.waiting.iter().filter(|(_, one)| !one.asked.is_empty()).map(|(tag, _)| *tag).collect();
        if asked.is_empty() {
            return;
        }
        let tag = asked[which % asked.len()];
        let (ttt, at, count) = self.waiting.get_mut(&tag).unwrap().asked.pop_front().unwrap();
        self.waiting.get_mut(&tag).unwrap().spoiled = !matches!(how, Data::Whole | Data::InPieces);
        let fails = match how {
            Data::Whole => {
                self.data_out(tag, ttt, 0, at, count, true, false);
                false
            }
            Data::InPieces => {
                self.data_out(tag, ttt, 0, at, count / 2, false, false);
                self.data_out(tag, ttt, 1, at + count / 2, count - count / 2, true, false);
                false
            }
            Data::OtherTag => {
                self.data_out(tag, ttt ^ 0x4000_0000, 0, at, count, true, false);
                true
            }
            Data::OtherPlace => {
                self.data_out(tag, ttt, 0, at + BLOCK, count - BLOCK, true, false);
                true
            }
            Data::Short => {
                self.data_out(tag, ttt, 0, at, count - 1, true, false);
                true
            }
            // Without digests nobody can know: nothing is sent but the whole.
            Data::Damaged => {
                self.data_out(tag, ttt, 0, at, count, true, self.digests);
                self.digests
            }
        };
        assert!(!fails || !self.waiting.contains_key(&tag), "wrong data end the command: {how:?}");
    }

    /// ABORT TASK of one command, or of one that was never there.
    pub fn abort(&mut self, which: usize) {
        let tags: Vec<u32> = self.waiting.keys().copied().chain([0x00ff_0000]).collect();
        let tag = tags[which % tags.len()];
        self.manage(1, tag, |other, _| other == tag);
    }

    /// ABORT TASK SET (2) or LOGICAL UNIT RESET (5) of unit 0.
    pub fn abort_all(&mut self, function: u8) {
        self.manage(function, NO_TAG, |_, waiting| waiting.lun == 0);
    }

    fn manage(&mut self, function: u8, referenced: u32, which: impl Fn(u32, &Waiting) -> bool) {
        let tag = self.tag();
        let mut header = self.header(0x42, 0x80 | function, tag);
        header[20..24].copy_from_slice(&referenced.to_be_bytes());
        self.plain.insert(tag);
        self.send(&header, &[]);
        if !self.rejected_aborts.contains(&tag) {
            let gone: Vec<u32> =
                self.waiting.iter().filter(|(tag, one)| which(**tag, one)).map(|(tag, _)| *tag).collect();
            for tag in gone {
                self.waiting.remove(&tag);
                self.aborted.insert(tag);
            }
        }
        if function == 5 && self.may_send() {
            // No unit attention for the one who asked: a unit that is ready says so.
            self.command(0, &[0; 6], 0x80, 0, 0, &[]);
        }
    }

    pub fn ping(&mut self, length: usize) {
        let tag = self.tag();
        let header = self.header(0x40, 0x80, tag);
        self.plain.insert(tag);
        self.send(&header, &vec![1; length]);
    }

    pub fn text(&mut self) {
        if self.may_send() {
            let tag = self.tag();
            let header = self.header(0x04, 0x80, tag);
            self.plain.insert(tag);
            self.send(&header, b"SendTargets=\0");
        }
    }

    pub fn log_out(&mut self) {
        let tag = self.tag();
        let header = self.header(0x46, 0x80, tag);
        self.plain.insert(tag);
        self.logged_out = true;
        // What has not got its data cannot end any more.
        let gone: Vec<u32> =
            self.waiting.iter().filter(|(_, one)| one.sent < one.writes).map(|(tag, _)| *tag).collect();
        for tag in gone {
            self.waiting.remove(&tag);
            self.aborted.insert(tag);
        }
        self.send(&header, &[]);
    }

    /// The disk takes so much work.
    pub fn begin(&mut self, count: usize) {
        for _ in 0..count {
            let Some(task) = self.target.poll_task() else { return };
            self.held.push((task.id, task.work));
        }
    }

    /// One piece of disk work is done.
    pub fn complete(&mut self, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let (id, work) = self.held.swap_remove(which % self.held.len());
        let outcome = match work {
            Work::Read(range) => Outcome::Data(vec![0; range.length as usize]),
            Work::Write { offset, data, .. } => {
                let tag = self.writers[offset as usize / BLOCK / BLOCKS_MAX];
                assert!(data == pattern(tag, 0, data.len()), "data of {tag} are not what was sent");
                Outcome::Done
            }
            _ => Outcome::Done,
        };
        self.target.complete(id, outcome);
        self.take();
    }

    /// A write waits for its R2T only while others have been promised all buffers.
    pub fn nobody_is_forgotten(&self) {
        let promised: usize =
            self.waiting.values().filter(|one| !one.asked.is_empty()).map(|one| one.writes).sum();
        let mut starving =
            self.waiting.iter().filter(|(_, one)| one.sent < one.writes && one.asked.is_empty());
        if let Some((tag, one)) = starving.next() {
            assert!(promised + one.writes > PROMISES_MAX, "{tag} waits, with {promised} bytes promised");
        }
    }

    /// Plays by the rules until nothing is left to do; then everything must have been answered.
    pub fn end(mut self) {
        self.begin(usize::MAX);
        while !self.held.is_empty() || self.waiting.values().any(|one| !one.asked.is_empty()) {
            self.complete(0);
            if !self.logged_out {
                self.answer(0, Data::Whole);
            }
            self.begin(usize::MAX);
        }
        assert!(self.waiting.is_empty(), "without an answer: {:?}", self.waiting);
        assert!(self.plain.is_empty(), "without an answer: {:?}", self.plain);
        assert_eq!(self.target.closing(), self.logged_out.then_some(CloseReason::Logout));
    }

    fn pdu(&self, header: &[u8; 48], data: &[u8]) -> Vec<u8> {
        let mut bytes = header.to_vec();
        bytes[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        if self.digests {
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(data);
        bytes.resize(start + data.len().next_multiple_of(4), 0);
        if self.digests && !data.is_empty() {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }

    fn send(&mut self, header: &[u8; 48], data: &[u8]) {
        let bytes = self.pdu(header, data);
        self.feed(&bytes);
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut count = self.terms.cut.min(bytes.len());
            if let Some(room) = self.target.receive_into() {
                count = count.min(room.len());
                room[..count].copy_from_slice(&bytes[..count]);
                self.target.received_into(count);
            } else {
                self.target.recv(&bytes[..count]);
            }
            bytes = &bytes[count..];
        }
        self.take();
    }

    /// Takes everything the target has.
    fn take(&mut self) {
        while let Some(event) = self.target.poll_event() {
            match event {
                Event::Admit(_) => self.target.admit(Ok(1)),
                // There is no other session whose work it could wait for.
                Event::Reset { task, .. } => self.target.complete(task, Outcome::Done),
                _ => {}
            }
        }
        let sent = self.target.outgoing().filter_map(Outgoing::bytes).flatten().copied().collect::<Vec<u8>>();
        assert!(sent.len() < OUTGOING_MAX, "{} bytes at once", sent.len());
        self.target.sent(sent.len());
        self.unsent.extend(sent);
        while !self.unsent.is_empty() {
            let header: [u8; 48] = self.unsent[..48].try_into().unwrap();
            let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
            let digests = usize::from(self.digests) * 4;
            let data_digest = if length > 0 { digests } else { 0 };
            self.unsent.drain(..48 + digests + length.next_multiple_of(4) + data_digest);
            self.judge(&header, length);
        }
    }

    fn judge(&mut self, header: &[u8; 48], length: usize) {
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let (opcode, tag) = (header[0], word(16));
        assert!(word(32).wrapping_sub(self.max_cmd_sn).cast_signed() >= 0, "MaxCmdSN went back: {opcode:x}");
        self.max_cmd_sn = word(32);
        let ends = opcode == 0x21 || opcode == 0x25 && header[1] & 1 != 0;
        if ends || !matches!(opcode, 0x25 | 0x31) {
            assert_eq!(word(24), self.stat_sn, "StatSN: {opcode:x}");
            self.stat_sn += 1;
        }
        if matches!(opcode, 0x21 | 0x25 | 0x31) {
            let waiting = self.waiting.get_mut(&tag);
            let aborted = self.aborted.contains(&tag);
            let waiting = waiting.unwrap_or_else(|| panic!("{opcode:x} for {tag}, aborted: {aborted}"));
            if opcode == 0x31 {
                waiting.asked.push_back((word(20), word(40) as usize, word(44) as usize));
            }
            if opcode == 0x25 {
                assert!(length <= SEGMENT);
                assert_eq!(word(40) as usize, waiting.come, "the place of Data-In");
                waiting.come += length;
                assert!(!ends || waiting.come == waiting.reads, "all data before the status");
            }
            if ends {
                assert!(header[3] == 0 || waiting.spoiled, "{tag} failed without a reason");
                assert!(header[3] != 0 || waiting.sent == waiting.writes, "{tag} is done without its data");
                self.waiting.remove(&tag);
            }
        } else if opcode == 0x3f {
            assert!(self.digests, "nothing but damaged data is rejected");
        } else {
            assert!(self.plain.remove(&tag), "{opcode:x} for {tag}, which is not waiting for it");
            if opcode == 0x22 && header[2] == 255 {
                self.rejected_aborts.insert(tag);
            }
        }
    }
}

/// What a command writes, so that each byte tells whose it is and where it belongs.
fn pattern(tag: u32, at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| (tag as usize * 37 + at + at / 251) as u8).collect()
}
