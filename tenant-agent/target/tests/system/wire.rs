//! A raw initiator: any PDU, right or wrong, and the answers to it. libiscsi would refuse to send most of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::target::NAME;

/// No tag (RFC 7143 section 11.2.1.8 and others).
pub const NO_TAG: u32 = u32::MAX;

/// The tag of every login request.
pub const LOGIN_TAG: u32 = 77;

/// The last byte of the ISID in a [`login`]. Another one is another session (RFC 7143 section 4.4.3.1).
pub const ISID: u8 = 1;

/// How long an answer may take. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PDU to send.
#[derive(Clone)]
pub struct Pdu {
    header: [u8; 48],
    /// Additional header segments.
    extra: Vec<u8>,
    data: Vec<u8>,
}

/// A PDU with these first two bytes.
pub fn pdu(opcode: u8, flags: u8) -> Pdu {
    let mut header = [0; 48];
    header[0] = opcode;
    header[1] = flags;
    Pdu { header, extra: Vec::new(), data: Vec::new() }
}

impl Pdu {
    pub fn byte(mut self, at: usize, value: u8) -> Self {
        self.header[at] = value;
        self
    }

    pub fn word(mut self, at: usize, value: u32) -> Self {
        self.header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// Sets the data segment and its length.
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self.length(data.len() as u32)
    }

    /// Claims a length, whatever the data segment has.
    pub fn length(mut self, length: u32) -> Self {
        self.header[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        self
    }

    pub fn extra(mut self, words: u8) -> Self {
        self.header[4] = words;
        self.extra = vec![0xee; usize::from(words) * 4];
        self
    }

    /// With the digests that were agreed on (RFC 7143 section 11.2.3).
    pub fn bytes(&self, header_digest: bool, data_digest: bool) -> Vec<u8> {
        let mut bytes = [&self.header[..], &self.extra].concat();
        if header_digest {
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(&self.data);
        bytes.resize(start + self.data.len().next_multiple_of(4), 0);
        if data_digest && !self.data.is_empty() {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }
}

/// A login request with this text; flags as in RFC 7143 section 11.12.
pub fn login(flags: u8, text: &[u8]) -> Pdu {
    let isid = [0x40, 0, 0x27, 0x23, 0, ISID];
    let head = (8..14).zip(isid).fold(pdu(0x43, flags), |head, (at, byte)| head.byte(at, byte));
    head.word(16, LOGIN_TAG).word(24, 1).data(text)
}

/// Who calls whom, and more keys.
pub fn names(keys: &[&str]) -> Vec<u8> {
    names_of("iqn.a", keys)
}

/// The same for an initiator with this name.
pub fn names_of(initiator: &str, keys: &[&str]) -> Vec<u8> {
    let mut text = format!("InitiatorName={initiator}\0TargetName={NAME}\0SessionType=Normal\0");
    for key in keys {
        text.push_str(key);
        text.push('\0');
    }
    text.into_bytes()
}

/// READ (10) or WRITE (10).
pub fn ten(operation: u8, block: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = operation;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// A PDU that came.
#[derive(Debug)]
pub struct Answer {
    pub header: [u8; 48],
    pub data: Vec<u8>,
}

impl Answer {
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }

    pub fn login_status(&self) -> u16 {
        u16::from_be_bytes([self.header[36], self.header[37]])
    }
}

/// A connection.
pub struct Wire {
    pub stream: TcpStream,
    pub cmd_sn: u32,
    header_digest: bool,
    data_digest: bool,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, cmd_sn: 1, header_digest: false, data_digest: false }
    }

    /// In full feature phase, the unit attention of unit 0 cleared (SAM-5 section 5.14).
    pub fn log_in(address: SocketAddr, keys: &[&str]) -> Self {
        Self::log_in_as(ISID, address, keys)
    }

    pub fn log_in_as(isid: u8, address: SocketAddr, keys: &[&str]) -> Self {
        let mut wire = Self::connect(address);
        wire.send(&login(0x87, &names(keys)).byte(13, isid));
        wire.begin(keys);
        wire
    }

    /// Takes the answer to the last login request.
    pub fn begin(&mut self, keys: &[&str]) {
        let answer = self.answer().expect("an answer to the login");
        assert_eq!((answer.header[0], answer.login_status()), (0x23, 0));
        self.header_digest = keys.contains(&"HeaderDigest=CRC32C");
        self.data_digest = keys.contains(&"DataDigest=CRC32C");
        let ready = self.command(1, &[0; 6], 0x80, 0);
        self.send(&ready);
        assert_eq!(self.answer().unwrap().header[3], 2);
    }

    /// The next command, for unit 0.
    pub fn command(&mut self, itt: u32, cdb: &[u8], flags: u8, expected: u32) -> Pdu {
        let mut command = pdu(0x01, flags).word(16, itt).word(20, expected).word(24, self.cmd_sn);
        command.header[32..32 + cdb.len()].copy_from_slice(cdb);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        command
    }

    /// Sends a PDU. That the peer has closed meanwhile shows when its answer is read.
    pub fn send(&mut self, pdu: &Pdu) {
        self.raw(&pdu.bytes(self.header_digest, self.data_digest));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next PDU, or nothing when the connection is closed. Silence fails the test.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut header = [0; 48];
        self.read(&mut header)?;
        self.read(&mut vec![0; if self.header_digest { 4 } else { 0 }])?;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let digest = if self.data_digest && length > 0 { 4 } else { 0 };
        let mut data = vec![0; length.next_multiple_of(4) + digest];
        self.read(&mut data)?;
        data.truncate(length);
        Some(Answer { header, data })
    }

    fn read(&mut self, into: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(into) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer and no end"),
            Err(_) => None,
        }
    }
}
