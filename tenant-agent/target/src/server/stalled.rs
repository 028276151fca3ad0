//! A store that stands still: what goes on all the same, and what must wait for it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::SignalFd;

use super::Server;
use super::gate::{Gate, Gated};
use crate::arguments::Arguments;
use crate::disk::{Disk, Store};
use crate::events::Events;

const NAME: &str = "iqn.2026-11.internal.bmi:test";
/// NOP-In, SCSI Response, Task Management Function Response, Data-In (RFC 7143 section 11.2.1.2).
const NOP_IN: u8 = 0x20;
const RESPONSE: u8 = 0x21;
const MANAGED: u8 = 0x22;
const DATA_IN: u8 = 0x25;
/// Status codes (SAM-5 section 5.3.1).
const BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

/// A target over a gated store.
fn target(sessions: &str) -> (SocketAddr, Arc<Gate>, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let arguments = ["bmi-target", "--listen", "127.0.0.1:0", "--target", NAME, "--lun", "0=memory:1M"];
    let arguments = arguments.into_iter().chain(["--sessions", sessions]);
    let arguments = Arguments::try_parse_from(arguments).unwrap();
    let (gate, bytes) = (Arc::new(Gate::default()), Arc::new(Mutex::new(vec![0; 1 << 20])));
    let disk = Disk::over(Box::new(Gated(Arc::clone(&gate), Arc::clone(&bytes))));
    let credentials = crate::credentials::open(&arguments).unwrap();
    let events = Events::start(std::io::sink()).unwrap();
    let signals = SignalFd::new(&SigSet::empty()).unwrap();
    // It serves until the test program ends.
    std::thread::spawn(move || {
        let server = Server::new(&arguments, vec![Store::Local(disk)], credentials, vec![listener], events);
        server.unwrap().run(&signals);
    });
    (address, gate, bytes)
}

/// An initiator that counts its own commands.
struct Initiator {
    stream: TcpStream,
    command: u32,
}

impl Initiator {
    /// Sends a login, straight to full feature phase.
    fn begin(address: SocketAddr, isid: u8) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let text = format!("InitiatorName=iqn.2026-11.x:i\0TargetName={NAME}\0SessionType=Normal\0");
        let mut pdu = vec![0; 48];
        pdu[..2].copy_from_slice(&[0x43, 0x87]);
        pdu[7] = u8::try_from(text.len()).unwrap();
        pdu[8..14].copy_from_slice(&[0x40, 0, 0x27, 0x23, 0, isid]);
        pdu[27] = 1;
        pdu.extend(text.as_bytes());
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        (&stream).write_all(&pdu).unwrap();
        Self { stream, command: 0 }
    }

    fn log_in(address: SocketAddr, isid: u8) -> Self {
        let mut initiator = Self::begin(address, isid);
        initiator.begun();
        initiator
    }

    /// The login is accepted.
    fn begun(&mut self) {
        let answer = self.answer().unwrap();
        assert_eq!(answer[36..38], [0, 0], "the login is accepted");
        self.command = u32::from_be_bytes(answer[28..32].try_into().unwrap());
        // Test unit ready: the first answer may be a unit attention.
        self.scsi(0, 0, &[]);
        assert_eq!(self.answer().unwrap()[0], RESPONSE);
    }

    /// A command is done, and well.
    fn done(&mut self) {
        let answer = self.answer().unwrap();
        assert_eq!((answer[0], answer[3]), (RESPONSE, 0));
    }

    /// The next PDU's header; nothing when there is none within the time the stream has.
    fn answer(&mut self) -> Option<[u8; 48]> {
        let mut header = [0; 48];
        match self.stream.read_exact(&mut header) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            read => read.unwrap(),
        }
        let length = (usize::from(header[6]) << 8 | usize::from(header[7])).next_multiple_of(4);
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        Some(header)
    }

    /// A SCSI command (RFC 7143 section 11.3) of one block, with immediate data when it writes.
    fn scsi(&mut self, flags: u8, operation: u8, data: &[u8]) {
        self.scsi_at(0, flags, operation, data);
    }

    fn scsi_at(&mut self, block: u16, flags: u8, operation: u8, data: &[u8]) {
        let mut pdu = vec![0; 48];
        pdu[..2].copy_from_slice(&[0x01, 0x80 | flags]);
        pdu[6..8].copy_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        pdu[16..20].copy_from_slice(&(self.command + 100).to_be_bytes());
        let length: u16 = if flags == 0 { 0 } else { 512 };
        pdu[22..24].copy_from_slice(&length.to_be_bytes());
        pdu[24..28].copy_from_slice(&self.command.to_be_bytes());
        pdu[32] = operation;
        pdu[36..38].copy_from_slice(&block.to_be_bytes());
        pdu[40] = 1;
        pdu.extend(data);
        self.command += 1;
        self.stream.write_all(&pdu).unwrap();
    }

    fn read(&mut self) {
        self.scsi(0x40, 0x28, &[]);
    }

    fn write(&mut self, value: u8) {
        self.scsi(0x20, 0x2a, &[value; 512]);
    }

    /// PERSISTENT RESERVE OUT (SPC-4 section 6.16).
    fn reserve(&mut self, action: u8, kind: u8, key: u8, other: u8) {
        let mut pdu = vec![0; 72];
        pdu[..2].copy_from_slice(&[0x01, 0xa0]);
        pdu[7] = 24;
        pdu[16..20].copy_from_slice(&(self.command + 100).to_be_bytes());
        pdu[23] = 24;
        pdu[24..28].copy_from_slice(&self.command.to_be_bytes());
        pdu[32..35].copy_from_slice(&[0x5f, action, kind]);
        pdu[40] = 24;
        (pdu[55], pdu[63]) = (key, other);
        self.command += 1;
        self.stream.write_all(&pdu).unwrap();
    }

    /// LOGICAL UNIT RESET, immediate (RFC 7143 section 11.5).
    fn reset(&mut self) {
        self.manage(0x85);
    }

    fn manage(&mut self, function: u8) {
        let mut pdu = [0; 48];
        pdu[..2].copy_from_slice(&[0x42, function]);
        pdu[19] = 8;
        pdu[20..24].fill(0xff);
        pdu[24..28].copy_from_slice(&self.command.to_be_bytes());
        self.stream.write_all(&pdu).unwrap();
    }

    /// Nothing comes for a while.
    fn waits(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(self.answer().is_none());
        self.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }

    /// An immediate NOP-Out that wants an answer.
    fn ping(&mut self) {
        let mut pdu = [0; 48];
        pdu[..2].copy_from_slice(&[0x40, 0x80]);
        pdu[19] = 9;
        pdu[20..24].fill(0xff);
        pdu[24..28].copy_from_slice(&self.command.to_be_bytes());
        self.stream.write_all(&pdu).unwrap();
    }
}

#[test]
fn b4_a_store_that_stands_still_delays_neither_nop_nor_login() {
    let (address, gate, _) = target("many");
    let mut node = Initiator::log_in(address, 1);
    gate.set(true);
    node.read();
    for _ in 0..3 {
        node.ping();
        assert_eq!(node.answer().unwrap()[0], NOP_IN, "before the read, which still waits");
    }
    let mut other = Initiator::log_in(address, 2);
    other.ping();
    assert_eq!(other.answer().unwrap()[0], NOP_IN);
    gate.set(false);
    assert_eq!(node.answer().unwrap()[0], DATA_IN, "the session was kept, and the read is answered");
}

#[test]
fn b3_no_write_of_the_old_session_lands_after_the_new_one_has_begun() {
    let (address, gate, bytes) = target("one");
    let mut node = Initiator::log_in(address, 1);
    node.write(1);
    node.done();
    gate.set(true);
    node.write(2);
    node.ping();
    assert_eq!(node.answer().unwrap()[0], NOP_IN, "the write is on its way");
    // The same node after a power cut: the old session is reinstated at once, but begins only when nothing of it is
    // on its way any more.
    let mut again = Initiator::begin(address, 1);
    again.waits();
    assert_eq!(bytes.lock().unwrap()[0], 1);
    gate.set(false);
    again.begun();
    assert_eq!(bytes.lock().unwrap()[0], 2, "the old write landed before");
    again.write(3);
    again.done();
    assert_eq!(bytes.lock().unwrap()[0], 3);
}

#[test]
fn writes_to_one_place_are_done_in_the_order_they_came() {
    let (address, gate, bytes) = target("one");
    let mut node = Initiator::log_in(address, 1);
    gate.set(true);
    for value in 1..=20 {
        node.write(value);
    }
    gate.set(false);
    for _ in 1..=20 {
        node.done();
    }
    assert_eq!(bytes.lock().unwrap()[0], 20);
}

#[test]
fn what_is_at_hand_is_read_beside_what_waits_for_the_store() {
    let (address, gate, _) = target("one");
    let mut node = Initiator::log_in(address, 1);
    gate.set(true);
    node.read();
    node.scsi_at(1, 0x20, 0x2a, &[9; 512]);
    node.scsi_at(Gated::AT_HAND, 0x40, 0x28, &[]);
    let answer = node.answer().unwrap();
    assert_eq!((answer[0], answer[1] & 1), (DATA_IN, 1), "it overtakes what waits");
    assert_eq!(answer[16..20], (node.command + 99).to_be_bytes(), "the last command");
    // Not where a write is on its way: what it leaves behind has to be read.
    node.scsi_at(Gated::AT_HAND, 0x20, 0x2a, &[7; 512]);
    node.scsi_at(Gated::AT_HAND, 0x40, 0x28, &[]);
    node.waits();
    gate.set(false);
    let tags: Vec<u8> = (0..4).map(|_| node.answer().unwrap()[19]).collect();
    let at = |tag: u32| tags.iter().position(|found| u32::from(*found) == tag).unwrap();
    assert!(at(node.command + 98) < at(node.command + 99), "the write, then the read: {tags:?}");
}

/// Two sessions that are registered, the first of which holds the unit and has a write on its way.
fn holder_and_other() -> (Initiator, Initiator, Arc<Gate>, Arc<Mutex<Vec<u8>>>) {
    let (address, gate, bytes) = target("many");
    let (mut holder, mut other) = (Initiator::log_in(address, 1), Initiator::log_in(address, 2));
    for (node, key) in [(&mut holder, 1), (&mut other, 2)] {
        node.reserve(0, 0, 0, key);
        node.done();
    }
    holder.reserve(1, 3, 1, 0);
    holder.done();
    gate.set(true);
    holder.write(5);
    holder.ping();
    assert_eq!(holder.answer().unwrap()[0], NOP_IN, "the write is on its way");
    (holder, other, gate, bytes)
}

#[test]
fn preempt_and_abort_is_answered_when_no_write_of_the_preempted_can_land_any_more() {
    let (mut holder, mut other, gate, bytes) = holder_and_other();
    other.reserve(5, 3, 2, 1);
    other.waits();
    assert_eq!(bytes.lock().unwrap()[0], 0);
    gate.set(false);
    other.done();
    assert_eq!(bytes.lock().unwrap()[0], 5, "the old write landed before");
    other.write(6);
    other.done();
    holder.waits();
    assert_eq!(bytes.lock().unwrap()[0], 6);
}

#[test]
fn preempt_and_abort_waits_for_the_writes_of_a_session_that_has_ended_too() {
    let (holder, mut other, gate, bytes) = holder_and_other();
    drop(holder);
    other.ping();
    assert_eq!(other.answer().unwrap()[0], NOP_IN);
    other.reserve(5, 3, 2, 1);
    other.waits();
    gate.set(false);
    other.done();
    assert_eq!(bytes.lock().unwrap()[0], 5);
}

#[test]
fn a_reset_is_answered_when_no_write_of_another_session_can_land_any_more() {
    let (mut holder, mut other, gate, bytes) = holder_and_other();
    other.reset();
    other.waits();
    gate.set(false);
    let answer = other.answer().unwrap();
    assert_eq!((answer[0], answer[2]), (MANAGED, 0));
    assert_eq!(bytes.lock().unwrap()[0], 5, "the write landed before");
    holder.waits();
}

#[test]
fn b4_what_comes_while_a_store_stands_still_is_told_to_come_again() {
    let (address, gate, _) = target("many");
    let mut node = Initiator::log_in(address, 1);
    let mut other = Initiator::log_in(address, 2);
    gate.set(true);
    node.read();
    node.ping();
    assert_eq!(node.answer().unwrap()[0], NOP_IN);
    // Longer than the store may take.
    std::thread::sleep(super::shared::STALL + Duration::from_millis(200));
    node.read();
    let answer = node.answer().unwrap();
    assert_eq!((answer[0], answer[3]), (RESPONSE, TASK_SET_FULL));
    other.read();
    let answer = other.answer().unwrap();
    assert_eq!((answer[0], answer[3]), (RESPONSE, BUSY), "it has no task under way that would end first");
    // What needs no store is done.
    other.scsi(0, 0, &[]);
    other.done();
    gate.set(false);
    assert_eq!(node.answer().unwrap()[0], DATA_IN);
    for initiator in [&mut node, &mut other] {
        initiator.read();
        assert_eq!(initiator.answer().unwrap()[0], DATA_IN);
    }
}

#[test]
fn a_cold_reset_that_had_to_wait_closes_at_once_when_it_is_answered() {
    let (address, gate, _) = target("one");
    let mut node = Initiator::log_in(address, 1);
    gate.set(true);
    node.write(1);
    // TARGET COLD RESET ends the connection after its answer.
    node.manage(0x87);
    node.waits();
    gate.set(false);
    assert_eq!(node.answer().unwrap()[0], MANAGED);
    node.stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    assert_eq!(
        node.stream.read(&mut [0; 1]).unwrap(),
        0,
        "closed, without another event that wakes the loop"
    );
}
