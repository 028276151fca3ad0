//! CRC32C of headers and data (RFC 7143 section 13.1), as a stream.

use std::sync::Arc;
use std::time::Instant;

use bmi_iscsi::{CloseReason, Connection, Event, Outcome, Outgoing, Seed, TargetState, Work};

use crate::pair::{INITIATOR, TARGET, config};

/// A connection with digests, and what it said since.
struct Guarded {
    target: Connection,
    cmd_sn: u32,
}

fn pdu(mut header: [u8; 48], data: &[u8], digests: bool) -> Vec<u8> {
    header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    let mut bytes = header.to_vec();
    if digests {
        bytes.extend(crc32c::crc32c(&header).to_le_bytes());
    }
    let start = bytes.len();
    bytes.extend_from_slice(data);
    bytes.resize(start + data.len().next_multiple_of(4), 0);
    if digests && !data.is_empty() {
        bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
    }
    bytes
}

impl Guarded {
    fn log_in() -> Self {
        let config = config();
        let state = TargetState::new(&config);
        let seed = Seed { chap_identifier: 1, chap_challenge: [0; 16], portal: String::new() };
        let mut this =
            Self { target: Connection::new(Arc::new(config), state, seed, Instant::now()), cmd_sn: 1 };
        let text = format!(
            "InitiatorName={INITIATOR}\0TargetName={TARGET}\0SessionType=Normal\0HeaderDigest=CRC32C,None\0\
             DataDigest=CRC32C\0"
        );
        let mut header = [0; 48];
        (header[0], header[1], header[27]) = (0x43, 0x87, 1);
        this.target.recv(&pdu(header, text.as_bytes(), false));
        while let Some(event) = this.target.poll_event() {
            if let Event::Admit(_) = event {
                this.target.admit(Ok(1));
            }
        }
        let said = String::from_utf8_lossy(&this.sent()).into_owned();
        assert!(said.contains("HeaderDigest=CRC32C\0DataDigest=CRC32C\0"), "{said}");
        assert!(!this.target.takes_stored(), "a digest needs the bytes");
        this
    }

    fn sent(&mut self) -> Vec<u8> {
        while let Some(task) = self.target.poll_task() {
            let outcome = match task.work {
                Work::Read(range) => Outcome::Data(vec![0x5a; range.length as usize]),
                _ => Outcome::Done,
            };
            self.target.complete(task.id, outcome);
        }
        let bytes: Vec<u8> = self.target.outgoing().filter_map(Outgoing::bytes).flatten().copied().collect();
        self.target.sent(bytes.len());
        bytes
    }

    fn command(&mut self, cdb: &[u8], flags: u8, expected: u32, data: &[u8]) -> Vec<u8> {
        let mut header = [0; 48];
        (header[0], header[1], header[19]) = (0x01, 0x80 | flags, 5);
        header[20..24].copy_from_slice(&expected.to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.cmd_sn += 1;
        pdu(header, data, true)
    }
}

/// Takes an answer apart, and checks both its digests.
fn checked(bytes: &[u8]) -> ([u8; 48], Vec<u8>, usize) {
    let header: [u8; 48] = bytes[..48].try_into().unwrap();
    assert_eq!(crc32c::crc32c(&header).to_le_bytes(), bytes[48..52], "header digest");
    let length = usize::from(header[6]) << 8 | usize::from(header[7]);
    let padded = length.next_multiple_of(4);
    if length == 0 {
        return (header, Vec::new(), 52);
    }
    assert_eq!(
        crc32c::crc32c(&bytes[52..52 + padded]).to_le_bytes(),
        bytes[52 + padded..][..4],
        "data digest"
    );
    (header, bytes[52..52 + length].to_vec(), 52 + padded + 4)
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];

#[test]
fn both_digests_are_sent_and_taken() {
    let mut guarded = Guarded::log_in();
    let bytes = guarded.command(&[0; 6], 0, 0, &[]);
    guarded.target.recv(&bytes);
    assert_eq!(checked(&guarded.sent()).0[3], 2, "the unit attention of a new session");
    let bytes = guarded.command(&READ, 0x40, 4096, &[]);
    guarded.target.recv(&bytes);
    let (header, data, used) = checked(&guarded.sent());
    assert_eq!((header[0], data.len(), used), (0x25, 4096, 4096 + 56));
    let bytes = guarded.command(&WRITE, 0x20, 4096, &[7; 4096]);
    for byte in bytes {
        guarded.target.recv(&[byte]);
    }
    let (header, ..) = checked(&guarded.sent());
    assert_eq!((header[0], header[3]), (0x21, 0));
}

#[test]
fn a_damaged_header_ends_the_connection() {
    let mut guarded = Guarded::log_in();
    let mut bytes = guarded.command(&READ, 0x40, 4096, &[]);
    bytes[40] ^= 1;
    guarded.target.recv(&bytes);
    assert_eq!(guarded.target.closing(), Some(CloseReason::Protocol("header digest is wrong")));
}

#[test]
fn a_command_whose_data_are_damaged_is_rejected_and_the_session_made_anew() {
    let mut guarded = Guarded::log_in();
    let mut bytes = guarded.command(&WRITE, 0x20, 4096, &[7; 4096]);
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    guarded.target.recv(&bytes);
    let (header, ..) = checked(&guarded.sent());
    assert_eq!((header[0], header[2]), (0x3f, 0x02));
    assert_eq!(guarded.target.closing(), Some(CloseReason::Protocol("data digest is wrong")));
}

#[test]
fn a_damaged_data_out_fails_its_command_only() {
    let mut guarded = Guarded::log_in();
    let bytes = guarded.command(&[0; 6], 0, 0, &[]);
    guarded.target.recv(&bytes);
    guarded.sent();
    let bytes = guarded.command(&WRITE, 0x20, 4096, &[]);
    guarded.target.recv(&bytes);
    let (r2t, ..) = checked(&guarded.sent());
    assert_eq!(r2t[0], 0x31);
    let mut header = [0; 48];
    (header[0], header[1], header[19]) = (0x05, 0x80, 5);
    header[20..24].copy_from_slice(&r2t[20..24]);
    let mut bytes = pdu(header, &[7; 4096], true);
    bytes[1000] ^= 1;
    guarded.target.recv(&bytes);
    let sent = guarded.sent();
    let (reject, _, used) = checked(&sent);
    assert_eq!((reject[0], reject[2]), (0x3f, 0x02));
    let (response, sense, _) = checked(&sent[used..]);
    // PROTOCOL SERVICE CRC ERROR (RFC 7143 section 7.8).
    assert_eq!((response[0], response[3], sense[4], sense[14], sense[15]), (0x21, 2, 0x0b, 0x47, 0x05));
    assert_eq!(guarded.target.closing(), None);
}
