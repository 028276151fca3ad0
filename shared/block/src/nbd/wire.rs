//! What a client sends and hears of the NBD protocol, as bytes: the rest of its numbers is in [`super::protocol`].

pub use super::protocol::*;

/// "Request types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    Read = command::READ,
    Write = command::WRITE,
    Flush = command::FLUSH,
    WriteZeroes = command::WRITE_ZEROES,
    BlockStatus = command::BLOCK_STATUS,
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
