//! The 48-byte basic header segment (RFC 7143 section 11.2.1).

use std::fmt;

use crate::wire;

/// Length of a basic header segment.
pub const HEADER: usize = 48;

/// The reserved task tag: no task.
pub const NO_TAG: u32 = 0xffff_ffff;

/// Opcodes (RFC 7143 section 11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 7143")]
#[repr(u8)]
pub enum Opcode {
    NopOut = 0x00,
    Command = 0x01,
    TaskManagement = 0x02,
    LoginRequest = 0x03,
    TextRequest = 0x04,
    DataOut = 0x05,
    LogoutRequest = 0x06,
    NopIn = 0x20,
    Response = 0x21,
    TaskManagementResponse = 0x22,
    LoginResponse = 0x23,
    TextResponse = 0x24,
    DataIn = 0x25,
    LogoutResponse = 0x26,
    R2t = 0x31,
    Reject = 0x3f,
}

impl Opcode {
    /// The opcode an initiator may send with this value.
    pub(crate) const fn request(value: u8) -> Option<Self> {
        Some(match value {
            0x00 => Self::NopOut,
            0x01 => Self::Command,
            0x02 => Self::TaskManagement,
            0x03 => Self::LoginRequest,
            0x04 => Self::TextRequest,
            0x05 => Self::DataOut,
            0x06 => Self::LogoutRequest,
            _ => return None,
        })
    }
}

/// The initiator's part of a session's name (RFC 7143 section 11.12.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isid(pub [u8; 6]);

impl fmt::Debug for Isid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// A basic header segment, read or being written.
#[derive(Debug, Clone, Copy)]
pub struct Header(pub [u8; HEADER]);

impl Header {
    /// A header to send, final bit set.
    pub const fn new(opcode: Opcode) -> Self {
        let mut bytes = [0; HEADER];
        let [first, flags, ..] = &mut bytes;
        *first = opcode as u8;
        *flags = 0x80;
        Self(bytes)
    }

    /// The opcode's six bits.
    pub fn opcode(&self) -> u8 {
        wire::u8_at(&self.0, 0) & 0x3f
    }

    /// The I bit.
    pub fn immediate(&self) -> bool {
        wire::u8_at(&self.0, 0) & 0x40 != 0
    }

    /// Byte 1.
    pub fn flags(&self) -> u8 {
        wire::u8_at(&self.0, 1)
    }

    /// The F (or, in login, T) bit.
    pub fn is_final(&self) -> bool {
        self.flags() & 0x80 != 0
    }

    /// The C bit of login and text.
    pub fn continues(&self) -> bool {
        self.flags() & 0x40 != 0
    }

    /// Length of the data segment, in bytes, without padding.
    pub fn data_length(&self) -> u32 {
        wire::u24_at(&self.0, 5)
    }

    /// The logical unit number, if it is one a single-level target can have (SAM-5 section 4.7: peripheral or flat
    /// space addressing).
    pub fn lun(&self) -> Option<u16> {
        let [first, second, rest @ ..] = wire::array_at::<8>(&self.0, 8);
        let flat = u16::from_be_bytes([first & 0x3f, second]);
        match first >> 6 {
            0 if first == 0 && rest == [0; 6] => Some(u16::from(second)),
            1 if rest == [0; 6] => Some(flat),
            _ => None,
        }
    }

    /// The initiator task tag.
    pub fn itt(&self) -> u32 {
        self.word(16)
    }

    /// The target transfer tag.
    pub fn ttt(&self) -> u32 {
        self.word(20)
    }

    /// Four bytes.
    pub fn word(&self, at: usize) -> u32 {
        wire::u32_at(&self.0, at)
    }

    /// Sets byte 1.
    pub fn set_flags(&mut self, flags: u8) {
        wire::put(&mut self.0, 1, &[flags]);
    }

    /// Sets four bytes.
    pub fn set_word(&mut self, at: usize, value: u32) {
        wire::put(&mut self.0, at, &value.to_be_bytes());
    }

    /// Sets any bytes.
    pub fn set(&mut self, at: usize, value: &[u8]) {
        wire::put(&mut self.0, at, value);
    }

    /// Sets the length of the data segment. The caller keeps it below 2^24.
    pub fn set_data_length(&mut self, length: usize) {
        let [_, a, b, c] = wire::length(length).to_be_bytes();
        self.set(5, &[a, b, c]);
    }
}
