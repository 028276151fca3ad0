//! Buffers that are used again, so that a command on the fast path allocates nothing and touches memory that is warm.
//!
//! Invariants: a buffer has exactly the length that was asked for; what it holds is whatever its last user left, which
//! was data of the same session. At most [`SPARE_BYTES`] are kept.

/// What a session keeps for later, in bytes. Enough for a full window of 4 KiB, or a few long transfers.
const SPARE_BYTES: usize = 2 * 1024 * 1024;

/// The most buffers that are kept.
const SPARE_MAX: usize = 128;

/// How many of the latest are looked at: more would cost more than it saves.
const LOOK: usize = 8;

/// Buffers nobody uses.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of this length, with old content.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let recent = self.spare.len().saturating_sub(LOOK);
        let fitting = self
            .spare
            .iter()
            .enumerate()
            .skip(recent)
            .rev()
            .filter(|(_, buffer)| buffer.len() >= length)
            .min_by_key(|(_, buffer)| buffer.len());
        if let Some((at, _)) = fitting {
            let mut buffer = self.spare.swap_remove(at);
            self.bytes = self.bytes.saturating_sub(buffer.len());
            buffer.truncate(length);
            return buffer;
        }
        vec![0; length]
    }

    /// Keeps a buffer for later, if there is room.
    pub fn give(&mut self, buffer: Vec<u8>) {
        if buffer.is_empty() || buffer.capacity() > SPARE_BYTES {
            return;
        }
        while self.spare.len() >= SPARE_MAX || self.bytes + buffer.len() > SPARE_BYTES {
            // The oldest is the coldest.
            let old = self.spare.remove(0);
            self.bytes = self.bytes.saturating_sub(old.len());
        }
        self.bytes += buffer.len();
        self.spare.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_has_the_length_asked_for() {
        let mut buffers = Buffers::default();
        let first = buffers.take(4096);
        let place = first.as_ptr();
        buffers.give(first);
        let again = buffers.take(1000);
        assert_eq!((again.len(), again.as_ptr()), (1000, place));
        buffers.give(again);
        assert_eq!(buffers.take(4096).len(), 4096, "one that is too short is not taken");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut buffers = Buffers::default();
        for length in (0..1000).map(|at| at * 1024) {
            buffers.give(vec![0; length]);
            assert!(buffers.bytes <= SPARE_BYTES && buffers.spare.len() <= SPARE_MAX);
            assert_eq!(buffers.bytes, buffers.spare.iter().map(Vec::len).sum::<usize>());
        }
        buffers.give(vec![0; SPARE_BYTES + 1]);
        assert!(buffers.bytes <= SPARE_BYTES);
    }
}
