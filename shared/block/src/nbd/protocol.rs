//! Numbers of the NBD protocol (`doc/proto.md`), of its client here and of the server that brokers are. Everything is
//! big-endian.
//!
//! Deliberately absent: what BMI does not use (TLS, extended headers, `NBD_CMD_CACHE`).

/// "Newstyle negotiation": what a server says first.
pub const GREETING_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// "Newstyle negotiation": the second half of the greeting, and the beginning of an option.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// "Fixed newstyle negotiation".
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// "Request message".
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// "Simple reply message".
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// "Structured reply chunk message".
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// "Handshake flags", and the client's answer ("Client flags"): options have replies, also when they fail.
pub const FIXED_NEWSTYLE: u16 = 1 << 0;
/// "Handshake flags" and "Client flags": no padding behind `NBD_OPT_EXPORT_NAME`.
pub const NO_ZEROES: u16 = 1 << 1;

/// Length of a request without its payload.
pub const REQUEST: usize = 28;

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
#[expect(missing_docs, reason = "they are called as the protocol calls them")]
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// "Option reply types".
#[expect(missing_docs, reason = "they are called as the protocol calls them")]
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    /// Set in every type that is an error.
    pub const ERROR: u32 = 1 << 31;
    pub const UNSUPPORTED: u32 = ERROR + 1;
    pub const POLICY: u32 = ERROR + 2;
    pub const INVALID: u32 = ERROR + 3;
    pub const TLS_REQUIRED: u32 = ERROR + 5;
    pub const UNKNOWN: u32 = ERROR + 6;
    pub const SHUTDOWN: u32 = ERROR + 7;
}

/// "Option reply types": information about an export.
#[expect(missing_docs, reason = "they are called as the protocol calls them")]
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const BLOCK_SIZE: u16 = 3;
}

/// "Request types".
#[expect(missing_docs, reason = "they are called as the protocol calls them")]
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// "Command flags".
pub mod command_flag {
    /// Done when it is on stable storage. Allowed with every command.
    pub const FUA: u16 = 1 << 0;
    /// Keep the space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One extent, within what was asked for.
    pub const REQ_ONE: u16 = 1 << 3;
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

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.number())
    }

    /// The next eight bytes.
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
