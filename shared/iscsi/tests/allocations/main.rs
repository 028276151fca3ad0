//! The way of a command, once the buffers are there, takes no memory: a target that serves a thousand nodes is not to be
//! slowed down by its allocator, nor to grow.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::Instant;

use bmi_iscsi::{Connection, Event, Outcome, Seed, TargetConfig, TargetState, Unit, UnitKind, Work};

const WARM_UP: u32 = 200;
const COUNTED: u32 = 1000;

/// A session, and the bytes of its next command.
struct Session {
    target: Connection,
    cmd_sn: u32,
    pdu: Vec<u8>,
    /// Work that was done.
    done: u32,
}

impl Session {
    fn begin(digest: &str) -> Self {
        let unit = Unit {
            number: 0,
            kind: UnitKind::Disk,
            block_size: 512,
            blocks: 1 << 20,
            read_only: false,
            write_cache: true,
        };
        let name = "iqn.2026-11.example:disk".to_owned();
        let config =
            TargetConfig { name: name.clone(), initiators: Vec::new(), chap: false, units: vec![unit] };
        let state = TargetState::new(&config);
        let seed = Seed { chap_identifier: 1, chap_challenge: [0; 16], portal: String::new() };
        let mut target = Connection::new(Arc::new(config), state, seed, Instant::now());
        let text = format!(
            "InitiatorName=iqn.a\0TargetName={name}\0SessionType=Normal\0HeaderDigest={digest}\0DataDigest={digest}\0\
             MaxRecvDataSegmentLength=262144\0"
        );
        let mut pdu = vec![0; 48];
        (pdu[0], pdu[1], pdu[7], pdu[27]) = (0x43, 0x87, text.len() as u8, 1);
        pdu.extend(text.as_bytes());
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        target.recv(&pdu);
        while let Some(event) = target.poll_event() {
            if let Event::Admit(_) = event {
                target.admit(Ok(1));
            }
        }
        assert!(target.established());
        let sent = target.outgoing_bytes();
        target.sent(sent);
        Self { target, cmd_sn: 1, pdu: Vec::with_capacity(1 << 20), done: 0 }
    }

    /// One command from its bytes to the bytes of its answer.
    fn perform(&mut self, operation: u8, blocks: u16, data: &[u8], digests: bool) {
        let mut header = [0; 48];
        (header[0], header[1]) = (0x01, if operation == 0x28 { 0xc0 } else { 0xa0 });
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        header[16..20].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[20..24].copy_from_slice(&(u32::from(blocks) * 512).to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[32] = operation;
        header[39..41].copy_from_slice(&blocks.to_be_bytes());
        self.cmd_sn += 1;
        self.pdu.clear();
        self.pdu.extend_from_slice(&header);
        if digests {
            self.pdu.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        }
        self.pdu.extend_from_slice(data);
        if digests && !data.is_empty() {
            self.pdu.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
        }
        self.target.recv(&self.pdu);
        assert!(self.target.poll_event().is_none());
        while let Some(task) = self.target.poll_task() {
            self.done += 1;
            let outcome = match task.work {
                Work::Read(range) => Outcome::Data(self.target.buffer(range.length as usize)),
                Work::Write { data, .. } => {
                    self.target.give_back(data);
                    Outcome::Done
                }
                _ => panic!("reads and writes only"),
            };
            self.target.complete(task.id, outcome);
            assert!(self.target.outgoing().count() > 0);
            let sent = self.target.outgoing_bytes();
            self.target.sent(sent);
        }
    }
}

#[test]
fn a_command_on_its_way_takes_no_memory() {
    let data = vec![7; 64 * 1024];
    for digest in ["None", "CRC32C"] {
        let mut session = Session::begin(digest);
        let digests = digest != "None";
        // The unit attention of a new session.
        session.perform(0x28, 8, &[], digests);
        for (operation, blocks) in [(0x28, 8), (0x28, 128), (0x28, 2048), (0x2a, 8), (0x2a, 128)] {
            let data = if operation == 0x2a { &data[..usize::from(blocks) * 512] } else { &[] };
            let mut perform = |count: u32| {
                (0..count).for_each(|_| session.perform(operation, blocks, data, digests));
            };
            perform(WARM_UP);
            let before = session.done;
            let mut perform = |count: u32| {
                (0..count).for_each(|_| session.perform(operation, blocks, data, digests));
            };
            let taken = allocation_counter::measure(|| perform(COUNTED));
            assert!(session.done - before >= COUNTED);
            assert_eq!(
                taken.count_total, 0,
                "operation {operation:#x}, {blocks} blocks, digest {digest}: {taken:?}"
            );
        }
    }
}
