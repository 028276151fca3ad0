//! The other side of a connection, with disks in memory. It plays no rules of its own, and checks those of the target:
//! what is sent are whole PDUs with right digests; StatSN grows by one (RFC 7143 section 4.2.2.2) and MaxCmdSN never
//! goes back; work lies within its unit and writes to no unit that is read-only; what waits is bounded; after
//! [`Connection::closing`] nothing is begun.

use std::sync::Arc;
use std::time::Instant;

use bmi_iscsi::{
    Candidate, CloseReason, Connection, Event, FIRST_BURST, LoginStatus, Mutual, Outcome, Outgoing,
    SOLICITED_BYTES, Seed, TargetConfig, TargetState, Task, TaskId, Unit, UnitKind, WINDOW, Work,
};

use crate::disk;
use crate::trace::{Kind, Trace};

pub const TARGET: &str = "iqn.2026-01.example:disk";
pub const INITIATOR: &str = "iqn.2026-01.example:node";
pub const CHALLENGE: [u8; 16] = *b"0123456789abcdef";
pub const IDENTIFIER: u8 = 9;
pub const NO_TAG: u32 = u32::MAX;

/// Commands that may be open: the window, and immediate ones.
const TASKS_MAX: usize = WINDOW as usize + 8;

/// Bytes of writes that may be with the disk.
const HELD_MAX: u64 = SOLICITED_BYTES + (WINDOW as u64 + 8) * FIRST_BURST as u64;

/// What one request may leave to be sent beside a piece of a READ or an echo, in bytes.
const ANSWER_MAX: usize = 4096;

/// A piece of a READ or an echo, in the shortest segments and with digests, and every R2T a session may have.
const OUTGOING_MAX: usize = 256 * 1024 + 128 * 1024;

/// A PDU the target sent.
pub struct Answer {
    pub header: [u8; 48],
    pub data: Vec<u8>,
}

impl Answer {
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }
}

/// What is said to an initiator that wants in.
#[derive(Default)]
pub struct Door {
    pub secret: Option<(&'static str, &'static [u8])>,
    pub mutual: Option<Mutual<'static>>,
    pub refuses: bool,
}

pub struct Peer {
    pub target: Connection,
    units: Vec<Unit>,
    /// By the place of the unit; one without bytes reads as zeros.
    pub disks: Vec<Vec<u8>>,
    pub door: Door,
    pub candidates: Vec<Candidate>,
    /// Work is kept in `held` instead of being done.
    pub hold: bool,
    pub held: Vec<(TaskId, u16, Work)>,
    pub answers: Vec<Answer>,
    pub trace: Trace,
    /// The longest data segment it takes, if that is known.
    pub segment: Option<usize>,
    /// Bytes a time, and whether data of commands go where the target wants them.
    pub cut: usize,
    pub direct: bool,
    agreed: (bool, bool),
    digests: (bool, bool),
    unread: Vec<u8>,
    stat_sn: u32,
    max_cmd_sn: Option<u32>,
    over: bool,
}

pub const fn unit(number: u16, block_size: u32, blocks: u64, read_only: bool) -> Unit {
    Unit { number, kind: UnitKind::Disk, block_size, blocks, read_only, write_cache: true }
}

impl Peer {
    pub fn new(units: Vec<Unit>, chap: bool) -> Self {
        let config = TargetConfig {
            name: TARGET.into(),
            initiators: vec![INITIATOR.into()],
            chap,
            units: units.clone(),
        };
        let seed =
            Seed { chap_identifier: IDENTIFIER, chap_challenge: CHALLENGE, portal: "192.0.2.1:3260".into() };
        let state = TargetState::new(&config);
        Self {
            target: Connection::new(Arc::new(config), state, seed, Instant::now()),
            disks: units.iter().map(|_| Vec::new()).collect(),
            units,
            door: Door::default(),
            candidates: Vec::new(),
            hold: false,
            held: Vec::new(),
            answers: Vec::new(),
            trace: Trace::default(),
            segment: None,
            cut: usize::MAX,
            direct: true,
            agreed: (false, false),
            digests: (false, false),
            unread: Vec::new(),
            stat_sn: 1,
            max_cmd_sn: None,
            over: false,
        }
    }

    /// Gives every disk its bytes.
    pub fn with_disks(mut self) -> Self {
        let fill = |unit: &Unit| vec![0xa5; (unit.blocks * u64::from(unit.block_size)) as usize];
        self.disks = self.units.iter().map(fill).collect();
        self
    }

    /// One login request that leads to a session, and a command for each unit that takes its attention. The next
    /// command is number 1 and a unit later. The bits of `terms`: 01 header digests, 02 data digests, 04 immediate
    /// data, 08 InitialR2T, 10 short bursts, 20 short segments, 40 discovery, 80 the disk waits.
    pub fn log_in(&mut self, terms: u8) -> u32 {
        let is = |bit: u8| terms & bit != 0;
        let yes = |yes| if yes { "Yes" } else { "No" };
        let digest = |on| if on { "CRC32C" } else { "None" };
        let burst = if is(0x10) { (4096, 8192) } else { (262_144, 1_048_576) };
        let segment = if is(0x20) { 512 } else { 65_536 };
        let kind = if is(0x40) {
            "SessionType=Discovery\0".to_owned()
        } else {
            format!("TargetName={TARGET}\0SessionType=Normal\0")
        };
        let text = format!(
            "InitiatorName={INITIATOR}\0{kind}HeaderDigest={}\0DataDigest={}\0ImmediateData={}\0InitialR2T={}\0\
             FirstBurstLength={}\0MaxBurstLength={}\0MaxOutstandingR2T=4\0MaxRecvDataSegmentLength={segment}\0",
            digest(is(1)),
            digest(is(2)),
            yes(is(4)),
            yes(is(8)),
            burst.0,
            burst.1,
        );
        let mut login = header(0x43, 0x87, 0);
        login[24..28].copy_from_slice(&1_u32.to_be_bytes());
        self.agreed = (is(1), is(2));
        self.feed(&pdu(&login, text.as_bytes(), (false, false)));
        assert!(self.target.established(), "a good login");
        self.hold = is(0x80);
        let mut number = 1_u32;
        if !is(0x40) {
            for lun in self.units.iter().map(|unit| unit.number as u8).collect::<Vec<_>>() {
                let mut ready = header(0x01, 0x80, 0xf000_0000 | number);
                ready[9] = lun;
                ready[24..28].copy_from_slice(&number.to_be_bytes());
                number += 1;
                self.send(&ready, &[]);
            }
        }
        self.answers.clear();
        number
    }

    pub const fn digests(&self) -> (bool, bool) {
        self.digests
    }

    pub fn send(&mut self, header: &[u8; 48], data: &[u8]) {
        let bytes = pdu(header, data, self.digests);
        self.feed(&bytes);
    }

    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (over, waiting) = (self.over, self.target.outgoing_bytes());
            let mut count = self.cut.clamp(1, bytes.len());
            match self.target.receive_into().filter(|_| self.direct) {
                Some(room) => {
                    assert!(!over && !room.is_empty(), "data are wanted by nobody");
                    count = count.min(room.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    self.target.received_into(count);
                }
                None => self.target.recv(&bytes[..count]),
            }
            assert!(!over || self.target.outgoing_bytes() == waiting, "an answer after the end");
            bytes = &bytes[count..];
            self.drive(count);
        }
    }

    /// Takes everything the target has, after so many bytes.
    pub fn drive(&mut self, after: usize) {
        loop {
            let mut idle = true;
            while let Some(event) = self.target.poll_event() {
                idle = false;
                self.event(event);
            }
            if !self.hold {
                while let Some(task) = self.task() {
                    idle = false;
                    let outcome = self.execute(task.lun, task.work);
                    self.target.complete(task.id, outcome);
                    self.take(0);
                }
            }
            if idle {
                break;
            }
        }
        self.take(after);
        if let Some(reason) = self.target.closing() {
            assert!(!self.target.established(), "a session after its end");
            assert!(self.target.poll_task().is_none(), "work after the end");
            assert!(self.target.receive_into().is_none(), "data are taken after the end");
            if !self.over {
                match reason {
                    CloseReason::Protocol(why) => self.trace.text(Kind::Close, why),
                    other => self.trace.text(Kind::Close, &format!("{other:?}")),
                }
            }
            self.over = true;
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Secret { user } => {
                self.trace.note(Kind::Event, 0);
                let secret = self.door.secret.filter(|(name, _)| *name == user).map(|(_, secret)| secret);
                self.target.secret(secret, self.door.mutual);
            }
            Event::Admit(candidate) => {
                self.trace.note(Kind::Event, 1 + u64::from(candidate.discovery));
                self.candidates.push(candidate);
                let refused = Err((LoginStatus::OUT_OF_RESOURCES, "no room"));
                self.target.admit(if self.door.refuses { refused } else { Ok(1) });
            }
            Event::Refused { reason, .. } => self.trace.text(Kind::Event, reason),
            // There is no other session whose work it could wait for.
            Event::Reset { lun, task } => {
                self.trace.note(Kind::Event, 8 + u64::from(lun.is_some()));
                self.target.complete(task, Outcome::Done);
            }
            Event::Preempted { whose, task, .. } => {
                assert!(whose.len() <= 64);
                self.trace.note(Kind::Event, 10);
                self.target.complete(task, Outcome::Done);
            }
            Event::Alive => self.trace.note(Kind::Event, 11),
        }
    }

    /// The next work, which is looked at.
    fn task(&mut self) -> Option<Task> {
        let task = self.target.poll_task()?;
        assert!(!self.over, "work after the end");
        let unit = self.units.iter().find(|unit| unit.number == task.lun).expect("a unit that there is");
        self.trace.note(Kind::Work, disk::judge(unit, &task.work) << 8 | u64::from(task.lun));
        Some(task)
    }

    /// Takes so much work, to do it later.
    pub fn begin(&mut self, count: usize) {
        for _ in 0..count {
            let Some(task) = self.task() else { return };
            self.held.push((task.id, task.lun, task.work));
            assert!(self.held.len() <= TASKS_MAX, "too many commands are open");
            let bytes: u64 = self.held.iter().map(|(_, _, work)| disk::data(work).len() as u64).sum();
            assert!(bytes <= HELD_MAX, "{bytes} bytes of writes");
        }
    }

    /// One piece of work that was held is done, or failed.
    pub fn complete(&mut self, which: usize, fault: Option<bmi_iscsi::Fault>) {
        if self.held.is_empty() {
            return;
        }
        let (id, lun, work) = self.held.swap_remove(which % self.held.len());
        let outcome = fault.map_or_else(|| self.execute(lun, work), Outcome::Failed);
        let waiting = self.target.outgoing_bytes();
        self.target.complete(id, outcome);
        assert!(!self.over || self.target.outgoing_bytes() == waiting, "an answer after the end");
        self.drive(0);
    }

    fn execute(&mut self, lun: u16, work: Work) -> Outcome {
        let at = self.units.iter().position(|unit| unit.number == lun).expect("a unit that there is");
        disk::execute(&mut self.target, &self.units[at], &mut self.disks[at], work)
    }

    /// Takes what the target sends, after so many bytes for it.
    fn take(&mut self, after: usize) {
        let waiting = self.target.outgoing_bytes();
        let most = OUTGOING_MAX + (after / 48 + 1) * ANSWER_MAX;
        assert!(waiting <= most, "{waiting} bytes are to be sent after {after}");
        // In two parts: the end of the first is the start of the second.
        for part in [waiting / 3, waiting - waiting / 3] {
            let sent: Vec<u8> =
                self.target.outgoing().filter_map(Outgoing::bytes).flatten().take(part).copied().collect();
            assert_eq!(sent.len(), part, "as many bytes as it says");
            self.target.sent(part);
            self.unread.extend(sent);
        }
        assert_eq!(self.target.outgoing_bytes(), 0);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = unread.as_slice();
        while !rest.is_empty() {
            rest = self.pdu(rest);
        }
    }

    /// Takes one PDU, and answers what is behind it.
    fn pdu<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let header: [u8; 48] = bytes.get(..48).expect("a whole header").try_into().unwrap();
        let mut rest = &bytes[48..];
        if self.digests.0 {
            let digest = rest.get(..4).expect("a header digest");
            assert_eq!(digest, crc32c::crc32c(&header).to_le_bytes(), "header digest");
            rest = &rest[4..];
        }
        assert_eq!(header[4], 0, "no additional headers");
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let padded = rest.get(..length.next_multiple_of(4)).expect("a whole data segment");
        assert!(padded[length..].iter().all(|byte| *byte == 0), "padding is zero");
        rest = &rest[padded.len()..];
        if self.digests.1 && length > 0 {
            let digest = rest.get(..4).expect("a data digest");
            assert_eq!(digest, crc32c::crc32c(padded).to_le_bytes(), "data digest");
            rest = &rest[4..];
        }
        let answer = Answer { header, data: padded[..length].to_vec() };
        self.look_at(&answer);
        self.answers.push(answer);
        rest
    }

    fn look_at(&mut self, answer: &Answer) {
        let (header, opcode, length) = (&answer.header, answer.header[0], answer.data.len());
        self.trace.note(Kind::Opcode, u64::from(opcode));
        let own = matches!(opcode, 0x20 | 0x31) && (opcode == 0x31 || answer.word(16) == NO_TAG);
        if opcode != 0x25 && !own || opcode == 0x25 && header[1] & 1 != 0 {
            assert_eq!(answer.word(24), self.stat_sn, "StatSN of {opcode:x}");
            self.stat_sn += 1;
        }
        let (expected, most) = (answer.word(28), answer.word(32));
        if let Some(before) = self.max_cmd_sn {
            assert!(most.wrapping_sub(before).cast_signed() >= 0, "MaxCmdSN goes back: {opcode:x}");
            let window = most.wrapping_sub(expected).wrapping_add(1);
            assert!(window <= WINDOW, "a window of {window}");
            self.max_cmd_sn = Some(most);
            let segment = self.segment.unwrap_or(0x00ff_ffff);
            assert!(length <= segment, "a segment of {length} bytes");
        }
        match opcode {
            0x20 | 0x25 | 0x31 => {}
            0x21 => {
                self.trace.note(Kind::ScsiStatus, u64::from(header[3]) << 8 | u64::from(header[1]));
                if header[3] == 2 {
                    assert!(length >= 16 && answer.data[2] & 0x7f == 0x70, "fixed sense");
                    let sense = [0, answer.data[4] & 15, answer.data[14], answer.data[15]];
                    self.trace.note(Kind::Sense, u64::from(u32::from_be_bytes(sense)));
                }
            }
            0x22 => self.trace.note(Kind::TaskManagement, u64::from(header[2])),
            0x23 => {
                assert!(self.max_cmd_sn.is_none(), "a login response in full feature phase");
                assert!(length <= 8192);
                // What is behind a login's last request may be in the same bytes, and is answered with digests then.
                let said = |key: &str, before| {
                    let text = answer
                        .data
                        .split(|byte| *byte == 0)
                        .find_map(|text| text.strip_prefix(key.as_bytes()));
                    text.map_or(before, |value| value == b"CRC32C")
                };
                self.agreed = (said("HeaderDigest=", self.agreed.0), said("DataDigest=", self.agreed.1));
                self.trace
                    .note(Kind::LoginStatus, u64::from(answer.word(36) >> 16) << 8 | u64::from(header[1]));
                if header[1] & 0x83 == 0x83 && answer.word(36) >> 16 == 0 {
                    self.max_cmd_sn = Some(most);
                    self.digests = self.agreed;
                }
            }
            0x24 => self.trace.note(Kind::Text, (u64::from(header[1]) << 16) | (length as u64).div_ceil(32)),
            0x26 => self.trace.note(Kind::Event, 16 + u64::from(header[2])),
            0x3f => {
                assert_eq!(length, 48, "a reject brings the header");
                self.trace.note(Kind::Reject, u64::from(header[2]) << 8 | u64::from(answer.data[0] & 0x3f));
            }
            _ => panic!("opcode {opcode:x}, which no target sends"),
        }
    }
}

/// A header without a transfer tag.
pub fn header(opcode: u8, flags: u8, tag: u32) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = opcode;
    header[1] = flags;
    header[16..20].copy_from_slice(&tag.to_be_bytes());
    header
}

/// A PDU with the right length and digests.
pub fn pdu(header: &[u8; 48], data: &[u8], digests: (bool, bool)) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    if digests.0 {
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    }
    let start = bytes.len();
    bytes.extend(data);
    bytes.resize(start + data.len().next_multiple_of(4), 0);
    if digests.1 && !data.is_empty() {
        bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
    }
    bytes
}
