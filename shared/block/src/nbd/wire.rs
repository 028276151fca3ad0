//! Numbers of the NBD protocol (`doc/proto.md`), and its headers as bytes. Everything is big-endian.
//!
//! Deliberately absent: what BMI does not use (TLS, extended headers, `NBD_CMD_TRIM`, `NBD_CMD_CACHE`).

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

/// "Transmission flags".
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes fail.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `NBD_CMD_FLUSH` is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// `NBD_CMD_FLAG_FUA` is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `NBD_CMD_WRITE_ZEROES` is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
}

/// "Option types".
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// "Option reply types".
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    /// Set in every type that is an error.
    pub const ERROR: u32 = 1 << 31;
    pub const UNSUPPORTED: u32 = ERROR + 1;
    pub const POLICY: u32 = ERROR + 2;
    pub const TLS_REQUIRED: u32 = ERROR + 5;
    pub const UNKNOWN: u32 = ERROR + 6;
    pub const SHUTDOWN: u32 = ERROR + 7;
}

/// "Option reply types": information about an export.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const BLOCK_SIZE: u16 = 3;
}

/// "Request types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    WriteZeroes = 6,
    BlockStatus = 7,
}

/// "Command flags".
pub mod command_flag {
    /// Done when it is on stable storage.
    pub const FUA: u16 = 1 << 0;
    /// Keep the space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One extent, within what was asked for.
    pub const REQ_ONE: u16 = 1 << 3;
}

/// "Structured reply flags": the last chunk of a reply.
pub const CHUNK_DONE: u16 = 1 << 0;

/// "Structured reply types".
pub mod chunk {
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    /// Set in every type that is an error.
    pub const ERROR: u16 = 1 << 15;
    pub const ERROR_OFFSET: u16 = ERROR + 2;
}

/// "Metadata contexts": a hole that reads as zeroes. A hole alone may read as anything.
pub const HOLE_OF_ZEROES: u32 = 0b11;
/// "Metadata contexts".
pub const ALLOCATION_CONTEXT: &str = "base:allocation";

/// "Error values", as far as they are told apart.
pub mod error_value {
    pub const EPERM: u32 = 1;
    pub const EINVAL: u32 = 22;
    pub const ENOSPC: u32 = 28;
    pub const ESHUTDOWN: u32 = 108;
    /// The others that exist. What does not exist means [`EINVAL`].
    pub const OTHERS: [u32; 5] = [5, 12, 22, 75, 95];
}

/// Length of a request without its payload.
pub const REQUEST: usize = 28;

/// "Request message".
pub fn request(command: Command, flags: u16, cookie: u64, offset: u64, length: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let fields = REQUEST_MAGIC
        .to_be_bytes()
        .into_iter()
        .chain(flags.to_be_bytes())
        .chain((command as u16).to_be_bytes())
        .chain(cookie.to_be_bytes())
        .chain(offset.to_be_bytes())
        .chain(length.to_be_bytes());
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}

/// Takes numbers from the front of bytes. What is not there reads as zero: the callers check lengths first.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_documented_layout() {
        let bytes = request(Command::WriteZeroes, command_flag::NO_HOLE, 0x0102, 0x0304, 0x0506);
        let mut fields = Fields(&bytes);
        assert_eq!(fields.u32(), REQUEST_MAGIC);
        assert_eq!((fields.u16(), fields.u16()), (2, 6));
        assert_eq!((fields.u64(), fields.u64(), fields.u32()), (0x0102, 0x0304, 0x0506));
        assert_eq!((fields.0.len(), fields.u64()), (0, 0));
    }
}
