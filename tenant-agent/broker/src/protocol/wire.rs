//! What a server says of the NBD protocol, as bytes: the numbers are those of the client ([`bmi_block::nbd::protocol`]).

pub use bmi_block::nbd::protocol::*;

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

/// Length of an option's header, and of a reply without its data.
pub const OPTION: usize = 16;
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
