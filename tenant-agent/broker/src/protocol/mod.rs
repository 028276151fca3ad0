//! The server's side of NBD (`doc/proto.md` of the NBD project): bytes in, requests and replies out. No I/O.
//!
//! Fixed newstyle with simple replies. Deliberately absent: TLS (a unix socket's directory says who may connect), oldstyle,
//! structured and extended headers, metadata contexts, `NBD_CMD_CACHE`, `NBD_CMD_RESIZE`.
//!
//! Invariants: whatever a client sends, no more is kept of it than one option or one header; a request that is let
//! through lies within its export; what is not known is refused, not guessed.

pub mod handshake;
pub mod request;
pub mod wire;

#[cfg(test)]
mod tests;

/// What a client did that the protocol does not allow, where no answer is of use: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client broke the protocol: {0}")]
pub struct Violation(pub &'static str);
