//! What a handshake agreed on.

use super::fault::{Fault, Violation};
use super::wire::transmission;

/// What may be read or written at once when the server does not say: 32 MiB ("Block size constraints"). What a server
/// says beyond it is not used, so that no request stays long.
const PAYLOAD_MAX: u32 = 32 << 20;
/// The largest block size that a server may ask for ("Block size constraints").
const MINIMUM_MAX: u32 = 64 << 10;

/// What a server says about lengths and offsets, in bytes ("Block size constraints").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    /// Offsets and lengths are multiples of it; a power of two.
    pub minimum: u32,
    /// The most that is read or written at once; a multiple of the minimum.
    pub payload: u32,
}

impl Default for BlockSize {
    /// What a server supports that was asked and says nothing ("Block size constraints").
    fn default() -> Self {
        Self { minimum: 1, payload: PAYLOAD_MAX }
    }
}

impl BlockSize {
    /// What a server said in `NBD_INFO_BLOCK_SIZE`.
    pub fn new(minimum: u32, maximum: u32) -> Result<Self, Violation> {
        if !minimum.is_power_of_two() || minimum > MINIMUM_MAX {
            return Err(Violation("a minimum block size that is no power of two up to 64 KiB"));
        }
        let payload = maximum.min(PAYLOAD_MAX) & !(minimum - 1);
        if payload == 0 {
            return Err(Violation("a maximum block size below the minimum"));
        }
        Ok(Self { minimum, payload })
    }
}

/// An export, as a handshake found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// "Transmission flags".
    pub flags: u16,
    /// Replies to reads are structured.
    pub structured: bool,
    /// The number of `base:allocation`, if the server tells extents.
    pub allocation: Option<u32>,
    /// Lengths and offsets.
    pub block: BlockSize,
}

impl Export {
    /// Whether the server offers something.
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether this, found later, can stand for `first`. What the caller was told at the start must stay true.
    pub fn stands_for(&self, first: &Self) -> Result<(), Fault> {
        let became = |flag| self.has(flag) && !first.has(flag);
        if self.size != first.size {
            Err(Fault::Changed("its size is another"))
        } else if became(transmission::READ_ONLY) {
            Err(Fault::Changed("it is read-only now"))
        } else if became(transmission::SEND_FLUSH) {
            // Nobody would flush a cache that was not there.
            Err(Fault::Changed("it has a volatile cache now"))
        } else if self.block.minimum > first.block.minimum {
            Err(Fault::Changed("its blocks are larger"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_bounded_and_fit_each_other() {
        assert_eq!(BlockSize::new(4096, u32::MAX), Ok(BlockSize { minimum: 4096, payload: PAYLOAD_MAX }));
        assert_eq!(BlockSize::new(4096, 10_000), Ok(BlockSize { minimum: 4096, payload: 8192 }));
        for (minimum, maximum) in [(0, 512), (3, 512), (1 << 17, u32::MAX), (4096, 0), (4096, 4095)] {
            assert!(BlockSize::new(minimum, maximum).is_err(), "{minimum} {maximum}");
        }
    }

    #[test]
    fn an_export_that_breaks_a_promise_does_not_stand_for_the_first() {
        let flags = transmission::HAS_FLAGS | transmission::SEND_FLUSH;
        let first =
            Export { size: 8, flags, structured: true, allocation: Some(1), block: BlockSize::default() };
        assert!(Export { structured: false, allocation: None, ..first.clone() }.stands_for(&first).is_ok());
        assert!(Export { flags: 1, ..first.clone() }.stands_for(&first).is_ok());
        assert!(Export { size: 9, ..first.clone() }.stands_for(&first).is_err());
        assert!(Export { flags: flags | 2, ..first.clone() }.stands_for(&first).is_err());
        assert!(first.stands_for(&Export { flags: 1, ..first.clone() }).is_err());
        let block = BlockSize { minimum: 512, payload: 512 };
        assert!(Export { block, ..first.clone() }.stands_for(&first).is_err());
    }
}
