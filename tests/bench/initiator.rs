//! An iSCSI initiator that makes load and looks at what it reads. One connection, one thread, as many commands open as
//! it is told; it sends and receives in batches, so that it is not what is measured.
//!
//! Every block of the disk begins with a stamp of its own address (see [`stamp`]): a read is checked in the receive
//! buffer as it arrives, a write carries the same stamps, so that the disk stays what it was.
//!
//! Deliberately absent: recovery. What is not as expected ends the run.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes in a logical block.
pub(crate) const BLOCK: usize = 512;

/// What this side takes in one PDU.
const SEGMENT: usize = 256 * 1024;

/// What is received at once: it stays in a processor's cache.
const BUFFER: usize = 256 * 1024;

/// Commands up to this size are waited for by looking again at once.
const SMALL: usize = 16 * 1024;

/// Larger ones are fetched in batches, as a network card that coalesces its interrupts would deliver them.
const PAUSE: Duration = Duration::from_micros(10);

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

const HEADER: usize = 48;
const NO_TAG: u32 = u32::MAX;

/// Which digests are asked for; the target must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digests {
    None,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// How an initiator waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It looks again and again, with a processor to itself: what wakes it up is not what is measured.
    Looking,
    /// It sleeps, since others need the processor.
    Sleeping,
}

/// What to do, over and over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    /// Bytes a command.
    pub(crate) size: usize,
    /// Commands open at a time.
    pub(crate) depth: usize,
}

/// What the first eight bytes of a block are.
pub(crate) fn stamp(block: u64) -> [u8; 8] {
    (block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x626d_6921).to_be_bytes()
}

/// Stamps the blocks of `data`, the first of which is `first`.
pub(crate) fn stamp_all(data: &mut [u8], first: u64) {
    for (at, block) in data.chunks_exact_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&stamp(first + at as u64));
    }
}

pub(crate) struct Initiator {
    stream: TcpStream,
    lun: u8,
    digests: Digests,
    cmd_sn: u32,
    buffer: Vec<u8>,
    incoming: Incoming,
    out: Vec<u8>,
    /// Blocks but for their stamps.
    data: Vec<u8>,
    /// What the target agreed to.
    immediate: usize,
    send_segment: usize,
    max_burst: usize,
    slots: Vec<Slot>,
    random: u64,
    blocks: u64,
}

/// A command that is open.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    block: u64,
    received: usize,
}

/// How far the current PDU has arrived.
#[derive(Debug, Clone, Default)]
struct Incoming {
    /// Header and header digest.
    head: Vec<u8>,
    data: usize,
    crc: u32,
    /// Padding and data digest.
    trailer: Vec<u8>,
    /// Data of everything but Data-In.
    kept: Vec<u8>,
}

/// A PDU that has arrived.
struct Arrived {
    head: [u8; HEADER],
    data: Vec<u8>,
}

impl Initiator {
    pub(crate) fn log_in(address: &str, target: &str, lun: u8, digests: Digests, seed: u32) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut this = Self {
            stream,
            lun,
            digests: Digests::None,
            cmd_sn: 1,
            buffer: vec![0; BUFFER],
            incoming: Incoming::default(),
            out: Vec::new(),
            data: vec![0x5a; SEGMENT],
            immediate: 0,
            send_segment: 8192,
            max_burst: 262_144,
            slots: Vec::new(),
            random: u64::from(seed) << 1 | 1,
            blocks: 0,
        };
        let digest = if digests == Digests::Both { "CRC32C" } else { "None" };
        let text = format!(
            "InitiatorName=iqn.2026-11.bench:{seed}\0TargetName={target}\0SessionType=Normal\0HeaderDigest={digest}\0\
             DataDigest={digest}\0InitialR2T=No\0ImmediateData=Yes\0MaxBurstLength=1048576\0FirstBurstLength=262144\0\
             MaxOutstandingR2T=8\0MaxConnections=1\0ErrorRecoveryLevel=0\0MaxRecvDataSegmentLength={SEGMENT}\0"
        );
        let mut header = [0; HEADER];
        header[0] = 0x43;
        header[1] = 0x87;
        // A random ISID (RFC 7143 section 11.12.5).
        header[8] = 0x80;
        header[9..12].copy_from_slice(&seed.to_be_bytes()[1..]);
        header[24..28].copy_from_slice(&1_u32.to_be_bytes());
        this.push(&mut header, text.as_bytes());
        this.flush();
        this.agree();
        this.digests = digests;
        // The unit attention of a new session.
        for _ in 0..3 {
            this.command(&[0; 6], 0, 0);
            if this.arrive().head[3] == 0 {
                break;
            }
        }
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
        this.command(&cdb, 0x40, 32);
        // Slot 0 takes the data as if they were blocks: they are kept instead.
        let capacity = this.arrive();
        assert_eq!(capacity.head[0], 0x25, "READ CAPACITY is answered with data");
        this.blocks = u64::from_be_bytes(capacity.data[..8].try_into().unwrap()) + 1;
        this
    }

    fn agree(&mut self) {
        let answer = self.arrive();
        assert_eq!(answer.head[36..38], [0, 0], "the login is refused");
        let text = String::from_utf8_lossy(&answer.data).into_owned();
        let number = |key: &str, otherwise| {
            let value = text.split('\0').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            value.map_or(otherwise, |text| text.parse().unwrap())
        };
        self.send_segment = number("MaxRecvDataSegmentLength", 8192);
        self.immediate = number("FirstBurstLength", 65_536).min(self.send_segment);
        self.max_burst = number("MaxBurstLength", 262_144);
    }

    /// Queues a PDU.
    fn push(&mut self, header: &mut [u8; HEADER], data: &[u8]) {
        self.push_header(header, data.len());
        let start = self.out.len();
        self.out.extend_from_slice(data);
        self.out.resize(start + data.len().next_multiple_of(4), 0);
        self.end_data(start);
    }

    /// Queues a PDU that carries stamped blocks; one with many is sent from where they are stamped, at once.
    fn push_blocks(&mut self, header: &mut [u8; HEADER], first: u64, bytes: usize) {
        self.push_header(header, bytes);
        if bytes > SMALL {
            let data = &mut self.data[..bytes];
            stamp_all(data, first);
            send(&self.stream, &[&self.out, data]);
            self.out.clear();
            if self.digests == Digests::Both {
                self.out.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
            }
            return;
        }
        let start = self.out.len();
        self.out.resize(start + bytes, 0x5a);
        stamp_all(&mut self.out[start..], first);
        self.end_data(start);
    }

    fn push_header(&mut self, header: &mut [u8; HEADER], data: usize) {
        header[5..8].copy_from_slice(&word_of(data).to_be_bytes()[1..]);
        self.out.extend_from_slice(header);
        if self.digests == Digests::Both {
            self.out.extend_from_slice(&crc32c::crc32c(header).to_le_bytes());
        }
    }

    fn end_data(&mut self, start: usize) {
        if self.digests == Digests::Both && self.out.len() > start {
            let digest = crc32c::crc32c(&self.out[start..]);
            self.out.extend_from_slice(&digest.to_le_bytes());
        }
    }

    fn flush(&mut self) {
        send(&self.stream, &[&self.out]);
        self.out.clear();
    }

    /// One command outside a load, with tag 0.
    fn command(&mut self, cdb: &[u8], flags: u8, expected: usize) {
        let mut header = self.command_header(0, cdb, flags, expected);
        self.push(&mut header, &[]);
        self.flush();
    }

    fn command_header(&mut self, itt: usize, cdb: &[u8], flags: u8, expected: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = 0x01;
        header[1] = 0x80 | flags;
        header[9] = self.lun;
        header[16..20].copy_from_slice(&word_of(itt).to_be_bytes());
        header[20..24].copy_from_slice(&word_of(expected).to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        header
    }

    /// Waits for one PDU, outside a load.
    fn arrive(&mut self) -> Arrived {
        let mut byte = [0; 1];
        loop {
            self.stream.read_exact(&mut byte).unwrap();
            let (used, arrived) = self.incoming.take(&byte, self.digests, &mut []);
            assert_eq!(used, 1);
            if let Some(arrived) = arrived {
                return arrived;
            }
        }
    }

    fn random_block(&mut self, blocks: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % (self.blocks / blocks) * blocks
    }

    fn begin(&mut self, load: Load, itt: usize) {
        let blocks = (load.size / BLOCK) as u64;
        let block = self.random_block(blocks);
        self.slots[itt] = Slot { block, received: 0 };
        let mut cdb = [0; 16];
        cdb[0] = if load.kind == Kind::Read { 0x88 } else { 0x8a };
        cdb[2..10].copy_from_slice(&block.to_be_bytes());
        cdb[10..14].copy_from_slice(&word_of(load.size / BLOCK).to_be_bytes());
        match load.kind {
            Kind::Read => {
                let mut header = self.command_header(itt, &cdb, 0x40, load.size);
                self.push(&mut header, &[]);
            }
            Kind::Write => {
                let mut header = self.command_header(itt, &cdb, 0x20, load.size);
                self.push_blocks(&mut header, block, load.size.min(self.immediate));
            }
        }
        if self.out.len() >= SEGMENT {
            self.flush();
        }
    }

    /// Writes every block of the disk once.
    pub(crate) fn fill_disk(&mut self) {
        let size = 64 * 1024;
        for block in (0..self.blocks).step_by(size / BLOCK) {
            let mut cdb = [0; 16];
            cdb[0] = 0x8a;
            cdb[2..10].copy_from_slice(&block.to_be_bytes());
            cdb[10..14].copy_from_slice(&word_of(size / BLOCK).to_be_bytes());
            let mut header = self.command_header(0, &cdb, 0x20, size);
            self.push_blocks(&mut header, block, size.min(self.immediate));
            self.flush();
            assert_eq!(self.arrive().head[3], 0);
        }
    }

    /// Keeps `load` going until the time is over, and gives how many commands were done.
    pub(crate) fn run(&mut self, load: Load, waiting: Waiting, time: Duration) -> u64 {
        self.stream.set_nonblocking(waiting == Waiting::Looking).unwrap();
        let pause = if load.size > SMALL { PAUSE } else { Duration::ZERO };
        self.slots = vec![Slot::default(); load.depth];
        for itt in 0..load.depth {
            self.begin(load, itt);
        }
        self.flush();
        let (until, mut done, mut open) = (Instant::now() + time, 0, load.depth);
        while open > 0 {
            let count = self.receive(pause);
            let mut at = 0;
            while at < count {
                let (used, arrived) =
                    self.incoming.take(&self.buffer[at..count], self.digests, &mut self.slots);
                at += used;
                let Some(arrived) = arrived else { continue };
                if !self.ended(load, &arrived) {
                    continue;
                }
                done += 1;
                open -= 1;
                if Instant::now() < until {
                    self.begin(load, word(&arrived.head, 16) as usize);
                    open += 1;
                }
            }
            self.flush();
        }
        self.slots = Vec::new();
        self.stream.set_nonblocking(false).unwrap();
        done
    }

    fn receive(&mut self, pause: Duration) -> usize {
        let begun = Instant::now();
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => panic!("the target closed the connection"),
                Ok(count) => return count,
                Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {
                    if pause.is_zero() { std::thread::yield_now() } else { std::thread::sleep(pause) }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether a PDU ends its command.
    fn ended(&mut self, load: Load, arrived: &Arrived) -> bool {
        let head = &arrived.head;
        let itt = word(head, 16) as usize;
        match head[0] & 0x3f {
            0x25 => {
                let over = head[1] & 0x01 != 0;
                assert!(!over || self.slots[itt].received == load.size, "a short read");
                over
            }
            0x21 => {
                assert_eq!(head[3], 0, "the command failed: {:x?}", arrived.data);
                true
            }
            0x31 => {
                let (ttt, offset, length) =
                    (word(head, 20), word(head, 40) as usize, word(head, 44) as usize);
                self.solicited(itt, ttt, offset, length);
                false
            }
            other => panic!("opcode {other:#x}"),
        }
    }

    fn solicited(&mut self, itt: usize, ttt: u32, offset: usize, length: usize) {
        assert!(length <= self.max_burst);
        let block = self.slots[itt].block;
        let (mut at, end) = (offset, offset + length);
        let mut data_sn = 0_u32;
        while at < end {
            let segment = self.send_segment.min(end - at);
            let mut header = [0; HEADER];
            header[0] = 0x05;
            header[1] = if at + segment == end { 0x80 } else { 0 };
            header[9] = self.lun;
            for (field, value) in
                [(16, word_of(itt)), (20, ttt), (28, NO_TAG), (36, data_sn), (40, word_of(at))]
            {
                header[field..field + 4].copy_from_slice(&value.to_be_bytes());
            }
            self.push_blocks(&mut header, block + (at / BLOCK) as u64, segment);
            at += segment;
            data_sn += 1;
        }
    }
}

impl Incoming {
    /// Takes bytes of one PDU, and gives how many; and the PDU, when it is whole. Data of slots are checked where they
    /// lie; all others are kept.
    fn take(&mut self, bytes: &[u8], digests: Digests, slots: &mut [Slot]) -> (usize, Option<Arrived>) {
        let digest = if digests == Digests::Both { 4 } else { 0 };
        let mut used = 0;
        let mut some = |wanted: usize| {
            let part = &bytes[used..bytes.len().min(used + wanted)];
            used += part.len();
            part
        };
        if self.head.len() < HEADER + digest {
            self.head.extend_from_slice(some(HEADER + digest - self.head.len()));
            if self.head.len() < HEADER + digest {
                return (used, None);
            }
            if digest > 0 {
                let crc = crc32c::crc32c(&self.head[..HEADER]).to_le_bytes();
                assert_eq!(crc, self.head[HEADER..], "header digest");
            }
        }
        let length = data_length(&self.head);
        let data = some(length - self.data);
        if digest > 0 {
            self.crc = crc32c::crc32c_append(self.crc, data);
        }
        let slot = slots.get_mut(word(&self.head, 16) as usize).filter(|_| self.head[0] == 0x25);
        match slot {
            Some(slot) => {
                let offset = word(&self.head, 40) as usize + self.data;
                assert_eq!(offset, slot.received, "data come in order");
                check(slot.block, offset, data);
                slot.received += data.len();
            }
            None => self.kept.extend_from_slice(data),
        }
        self.data += data.len();
        if self.data < length {
            return (used, None);
        }
        let padding = length.next_multiple_of(4) - length;
        let trailer = padding + if length > 0 { digest } else { 0 };
        self.trailer.extend_from_slice(some(trailer - self.trailer.len()));
        if self.trailer.len() < trailer {
            return (used, None);
        }
        if digest > 0 && length > 0 {
            let crc = crc32c::crc32c_append(self.crc, &self.trailer[..padding]);
            assert_eq!(crc.to_le_bytes(), self.trailer[padding..], "data digest");
        }
        let arrived =
            Arrived { head: self.head[..HEADER].try_into().unwrap(), data: std::mem::take(&mut self.kept) };
        self.head.clear();
        self.trailer.clear();
        (self.data, self.crc) = (0, 0);
        (used, Some(arrived))
    }
}

/// Sends all of it. The stream does not wait while a load is run, so writing may have to be tried again.
fn send(mut stream: &TcpStream, pieces: &[&[u8]]) {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match stream.write_vectored(left) {
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Looks at the stamps of all blocks that begin in `data`, which lies `offset` bytes behind `first`.
fn check(first: u64, offset: usize, data: &[u8]) {
    let mut at = offset.next_multiple_of(BLOCK) - offset;
    while at + 8 <= data.len() {
        let number = first + ((offset + at) / BLOCK) as u64;
        assert_eq!(data[at..at + 8], stamp(number), "block {number} holds something else");
        at += BLOCK;
    }
}

fn data_length(header: &[u8]) -> usize {
    usize::from(header[5]) << 16 | usize::from(header[6]) << 8 | usize::from(header[7])
}

fn word(pdu: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(pdu[at..at + 4].try_into().unwrap())
}

/// A length or tag as a header has it.
fn word_of(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}
