//! Numbers of the NBD protocol, and its headers as bytes. Everything is big-endian.

/// "Newstyle negotiation": what the server says first.
pub const GREETING_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// "Newstyle negotiation": the second half of the greeting, and the beginning of an option.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// "Fixed newstyle negotiation".
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// "Request message".
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// "Simple reply message".
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// "Handshake flags", and the client's answer: options have replies, also when they fail.
pub const FIXED_NEWSTYLE: u16 = 1 << 0;
/// "Handshake flags" and "Client flags": no padding behind `NBD_OPT_EXPORT_NAME`.
pub const NO_ZEROES: u16 = 1 << 1;

/// "Transmission flags".
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `NBD_CMD_FLUSH` is of use: a write that was answered may be in a cache.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// `NBD_CMD_FLAG_FUA` is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `NBD_CMD_TRIM` is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `NBD_CMD_WRITE_ZEROES` is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
}

/// "Option types".
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
}

/// "Option reply types".
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    /// Set in every type that is an error.
    pub const ERROR: u32 = 1 << 31;
    pub const UNSUPPORTED: u32 = ERROR + 1;
    pub const INVALID: u32 = ERROR + 3;
    pub const UNKNOWN: u32 = ERROR + 6;
}

/// Information about an export.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const BLOCK_SIZE: u16 = 3;
}

/// "Request types".
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const WRITE_ZEROES: u16 = 6;
}

/// "Command flags".
pub mod command_flag {
    /// Done when it is on stable storage. Allowed with every command.
    pub const FUA: u16 = 1 << 0;
    /// Keep the space.
    pub const NO_HOLE: u16 = 1 << 1;
}

/// "Error values".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorValue {
    /// The export is read-only.
    NotPermitted = 1,
    /// Reading or writing failed.
    InputOutput = 5,
    /// The request is not valid.
    Invalid = 22,
    /// No space is left, or the range is beyond the end.
    NoSpace = 28,
}

/// Length of an option's header, of a request without its payload, and of a reply without its data.
pub const OPTION: usize = 16;
pub const REQUEST: usize = 28;
pub const REPLY: usize = 16;

/// "Simple reply message", without data.
#[must_use]
pub fn simple_reply(error: Option<ErrorValue>, cookie: u64) -> [u8; REPLY] {
    let mut bytes = [0; REPLY];
    let error = error.map_or(0, |error| error as u32);
    let fields =
        SIMPLE_REPLY_MAGIC.to_be_bytes().into_iter().chain(error.to_be_bytes()).chain(cookie.to_be_bytes());
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}

/// Takes numbers from the front of bytes. What is not there reads as zero: the callers check lengths first.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn number<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.number())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.number())
    }

    /// So many bytes; nothing when there are fewer.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }
}
