//! An initiator and a target joined without a network. Time stands still unless a test moves it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_iscsi::{
    Candidate, CloseReason, Connection, Event, LoginStatus, Mutual, Outcome, Outgoing, Seed, TargetConfig,
    TargetState, TaskId, Unit, UnitKind, Work,
};

pub const TARGET: &str = "iqn.2026-01.example:disk";
pub const INITIATOR: &str = "iqn.2026-01.example:node";

/// A PDU the target sent.
#[derive(Debug, Clone)]
pub struct Answer {
    pub header: [u8; 48],
    pub data: Vec<u8>,
}

impl Answer {
    pub fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }

    pub fn word_of_data(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.data[at..at + 4].try_into().unwrap())
    }

    pub fn text(&self) -> Vec<String> {
        String::from_utf8(self.data.clone()).unwrap().split_terminator('\0').map(str::to_owned).collect()
    }

    pub fn status(&self) -> u8 {
        self.header[3]
    }

    /// Login status, class and detail.
    pub fn login_status(&self) -> LoginStatus {
        LoginStatus(u16::from_be_bytes([self.header[36], self.header[37]]))
    }

    /// Sense key and code.
    pub fn sense(&self) -> (u8, u16) {
        (self.data[4], u16::from_be_bytes([self.data[14], self.data[15]]))
    }
}

impl Answer {
    /// SKSV and C/D, and the field pointer, in fixed format.
    pub fn field(&self) -> (u8, u16) {
        (self.data[17], u16::from_be_bytes([self.data[18], self.data[19]]))
    }
}

pub struct Pair {
    pub target: Connection,
    /// What it shares with other pairs.
    pub state: TargetState,
    pub isid: u8,
    pub now: Instant,
    pub answers: VecDeque<Answer>,
    pub refused: Vec<(LoginStatus, &'static str)>,
    pub candidates: Vec<Candidate>,
    pub others: Vec<Event>,
    /// Resets and the like that wait for other sessions' work, which is under way as long as `others_work`.
    pub waiting: Vec<TaskId>,
    pub others_work: bool,
    /// What the target says to a candidate, at once.
    pub decision: Option<Result<u16, (LoginStatus, &'static str)>>,
    pub secret: Option<Vec<u8>>,
    pub mutual: Option<Mutual<'static>>,
    /// Work is kept in `held` instead of being done.
    pub slow: bool,
    /// What is read is sent from the disk itself.
    pub stored: bool,
    /// The most that is sent at once.
    pub cut: usize,
    pub held: Vec<(TaskId, Work)>,
    pub disk: Vec<u8>,
    pub executed: usize,
    pub cmd_sn: u32,
    pub outstanding: Vec<u8>,
}

pub fn config() -> TargetConfig {
    let unit = |number, kind, read_only| Unit {
        number,
        kind,
        block_size: 512,
        blocks: 4096,
        read_only,
        write_cache: true,
    };
    TargetConfig {
        name: TARGET.into(),
        initiators: vec![INITIATOR.into()],
        chap: false,
        units: vec![unit(0, UnitKind::Disk, false), unit(1, UnitKind::Config, true)],
    }
}

impl Pair {
    pub fn new(config: TargetConfig) -> Self {
        let state = TargetState::new(&config);
        Self::sharing(config, state, 1)
    }

    /// Another session of the same target, from another nexus. It has a disk of its own all the same.
    pub fn beside(&self, isid: u8) -> Self {
        let mut pair = Self::sharing(config(), self.state.clone(), isid);
        pair.log_in(&[]);
        pair.clear_attentions();
        pair
    }

    fn sharing(config: TargetConfig, state: TargetState, isid: u8) -> Self {
        let seed = Seed {
            chap_identifier: 9,
            chap_challenge: *b"0123456789abcdef",
            portal: "192.0.2.1:3260".into(),
        };
        let now = Instant::now();
        Self {
            target: Connection::new(Arc::new(config), state.clone(), seed, now),
            state,
            isid,
            now,
            answers: VecDeque::new(),
            refused: Vec::new(),
            candidates: Vec::new(),
            others: Vec::new(),
            waiting: Vec::new(),
            others_work: false,
            decision: Some(Ok(1)),
            secret: None,
            mutual: None,
            slow: false,
            stored: false,
            cut: usize::MAX,
            held: Vec::new(),
            disk: vec![0; 4096 * 512],
            executed: 0,
            cmd_sn: 1,
            outstanding: Vec::new(),
        }
    }

    /// Logged in, unit attentions cleared.
    pub fn ready(keys: &[&str]) -> Self {
        let mut pair = Self::new(config());
        pair.log_in(keys);
        pair.clear_attentions();
        pair
    }

    fn clear_attentions(&mut self) {
        for lun in 0..2 {
            assert_eq!(self.command(1, lun, &[0; 6], 0, 0, &[])[0].sense(), (6, 0x2900));
        }
    }

    pub fn log_in(&mut self, keys: &[&str]) -> Answer {
        let mut text = vec![
            format!("InitiatorName={INITIATOR}"),
            format!("TargetName={TARGET}"),
            "SessionType=Normal".into(),
        ];
        text.extend(keys.iter().map(|key| (*key).to_owned()));
        let text: Vec<&str> = text.iter().map(String::as_str).collect();
        let answer = self.login(0x87, &text);
        assert_eq!(answer.login_status(), LoginStatus::SUCCESS);
        assert!(self.target.established());
        answer
    }

    /// Sends a login request and returns the answer.
    pub fn login(&mut self, flags: u8, text: &[&str]) -> Answer {
        let data: String = text.iter().map(|pair| format!("{pair}\0")).collect();
        self.send(&self.login_header(flags), data.as_bytes());
        self.answers.pop_front().expect("an answer to the login")
    }

    pub fn login_header(&self, flags: u8) -> [u8; 48] {
        let mut header = [0; 48];
        header[0] = 0x43;
        header[1] = flags;
        header[8..14].copy_from_slice(&[0, 2, 0x3d, 0, 0, self.isid]);
        header[16..20].copy_from_slice(&[0, 0, 0, 77]);
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header
    }

    /// Sends a SCSI command and returns everything the target says.
    pub fn command(
        &mut self,
        itt: u32,
        lun: u8,
        cdb: &[u8],
        flags: u8,
        expected: u32,
        data: &[u8],
    ) -> Vec<Answer> {
        let header = self.command_header(itt, lun, cdb, 0x80 | flags, expected);
        self.send(&header, data);
        self.answers.drain(..).collect()
    }

    pub fn command_header(&mut self, itt: u32, lun: u8, cdb: &[u8], flags: u8, expected: u32) -> [u8; 48] {
        let mut header = [0; 48];
        header[0] = 0x01;
        header[1] = flags;
        header[9] = lun;
        header[16..20].copy_from_slice(&itt.to_be_bytes());
        header[20..24].copy_from_slice(&expected.to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        header
    }

    pub fn data_out(&mut self, itt: u32, ttt: u32, data_sn: u32, offset: u32, last: bool, data: &[u8]) {
        let mut header = [0; 48];
        header[0] = 0x05;
        header[1] = if last { 0x80 } else { 0 };
        for (at, value) in [(16, itt), (20, ttt), (36, data_sn), (40, offset)] {
            header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        self.send(&header, data);
    }

    /// Sends a PDU with the right length field.
    pub fn send(&mut self, header: &[u8; 48], data: &[u8]) {
        let mut pdu = header.to_vec();
        pdu[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        pdu.extend_from_slice(data);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        self.raw(&pdu);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.target.recv(bytes);
        self.drive();
    }

    pub fn drive(&mut self) {
        loop {
            let mut idle = true;
            while let Some(event) = self.target.poll_event() {
                idle = false;
                match event {
                    Event::Secret { .. } => self.target.secret(self.secret.clone().as_deref(), self.mutual),
                    Event::Admit(candidate) => {
                        self.candidates.push(candidate);
                        if let Some(decision) = self.decision {
                            self.target.admit(decision);
                        }
                    }
                    Event::Refused { status, reason } => self.refused.push((status, reason)),
                    other => {
                        if let Event::Reset { task, .. } | Event::Preempted { task, .. } = &other {
                            self.waiting.push(*task);
                        }
                        self.others.push(other);
                    }
                }
            }
            while !self.others_work
                && let Some(task) = self.waiting.pop()
            {
                self.target.complete(task, Outcome::Done);
            }
            while let Some(task) = self.target.poll_task() {
                idle = false;
                self.executed += 1;
                if self.slow {
                    self.held.push((task.id, task.work));
                } else {
                    let outcome = self.execute(task.work);
                    self.target.complete(task.id, outcome);
                }
            }
            if idle {
                break;
            }
        }
        while self.target.outgoing_bytes() > 0 {
            let sent: Vec<u8> = self.target.outgoing().flat_map(|piece| self.bytes(piece)).copied().collect();
            assert_eq!(sent.len(), self.target.outgoing_bytes());
            let sent = &sent[..sent.len().min(self.cut)];
            self.target.sent(sent.len());
            self.outstanding.extend(sent);
        }
        while self.outstanding.len() >= 48 {
            let length = usize::from(self.outstanding[6]) << 8
                | usize::from(self.outstanding[5]) << 16
                | usize::from(self.outstanding[7]);
            let total = 48 + length.next_multiple_of(4);
            assert!(self.outstanding.len() >= total, "whole PDUs only");
            let pdu: Vec<u8> = self.outstanding.drain(..total).collect();
            let header = pdu[..48].try_into().unwrap();
            self.answers.push_back(Answer { header, data: pdu[48..48 + length].to_vec() });
        }
    }

    fn bytes<'a>(&'a self, piece: Outgoing<'a>) -> &'a [u8] {
        match piece {
            Outgoing::Bytes(bytes) => bytes,
            Outgoing::Stored { lun, range } => {
                assert_eq!(lun, 0);
                &self.disk[range.offset as usize..(range.offset + range.length) as usize]
            }
        }
    }

    /// Does the work that was held, and lets the target answer.
    pub fn release(&mut self) {
        for (id, work) in std::mem::take(&mut self.held) {
            let outcome = self.execute(work);
            self.target.complete(id, outcome);
        }
        self.drive();
    }

    fn execute(&mut self, work: Work) -> Outcome {
        let span = |offset: u64, length: usize| offset as usize..offset as usize + length;
        match work {
            Work::Read(range) if self.stored && self.target.takes_stored() => Outcome::Stored(range),
            Work::Read(range) => Outcome::Data(self.disk[span(range.offset, range.length as usize)].to_vec()),
            Work::Write { offset, data, .. } => {
                self.disk[span(offset, data.len())].copy_from_slice(&data);
                Outcome::Done
            }
            Work::Compare { offset, data } if self.disk[span(offset, data.len())] != data => {
                Outcome::Differs { at: 0 }
            }
            Work::WriteVerify { offset, data } => {
                self.disk[span(offset, data.len())].copy_from_slice(&data);
                Outcome::Done
            }
            Work::CompareAndWrite { offset, data, .. } => {
                let (expected, new) = data.split_at(data.len() / 2);
                let held = &mut self.disk[span(offset, new.len())];
                match held.iter().zip(expected).position(|(held, expected)| held != expected) {
                    Some(at) => Outcome::Differs { at: at as u32 },
                    None => {
                        held.copy_from_slice(new);
                        Outcome::Done
                    }
                }
            }
            Work::Or { offset, data, .. } => {
                let held = &mut self.disk[span(offset, data.len())];
                held.iter_mut().zip(data).for_each(|(held, new)| *held |= new);
                Outcome::Done
            }
            // The first 64 KiB have space.
            Work::Extent { offset } => Outcome::Extent {
                offset,
                length: if offset < 65_536 { 65_536 - offset } else { self.disk.len() as u64 - offset },
                allocated: offset < 65_536,
            },
            Work::Zero { range, .. } => {
                self.disk[span(range.offset, range.length as usize)].fill(0);
                Outcome::Done
            }
            Work::Discard { ranges, .. } => {
                for range in ranges {
                    self.disk[span(range.offset, range.length as usize)].fill(0);
                }
                Outcome::Done
            }
            Work::Repeat { range, block, .. } => {
                self.disk[span(range.offset, range.length as usize)]
                    .chunks_mut(block.len())
                    .for_each(|chunk| chunk.copy_from_slice(&block));
                Outcome::Done
            }
            _ => Outcome::Done,
        }
    }

    pub fn closed_for_protocol(&self) -> bool {
        matches!(self.target.closing(), Some(CloseReason::Protocol(_)))
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.target.handle_timeout(self.now);
        self.drive();
    }
}

/// READ (10) or WRITE (10).
pub fn ten(operation: u8, block: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = operation;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
