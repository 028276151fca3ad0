//! Honesty about a cache that died: who is told that writes may be lost.
//!
//! A server with a volatile cache that dies may lose every write that was completed and not flushed. Sending those again
//! is impossible (they were given back), so the next flush says so, once: an initiator that asks whether its data are
//! safe hears that they may not be.
//!
//! Deliberately absent: which writes those were. Invariant: no flush that covers a write is reported done when the
//! connection broke between that write and that flush.

/// What a request knew of the world when it was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    written: u64,
    losses: u64,
}

/// Writes may be lost, and this is the first to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the store broke before completed writes were flushed; they may be lost")]
pub struct Lost;

/// What is known of completed writes.
#[derive(Debug, Default)]
pub struct Durability {
    /// Writes completed, all together.
    written: u64,
    /// Of those, how many a flush covered, or are told to be in doubt.
    settled: u64,
    /// How often the connection broke with writes that were not settled.
    losses: u64,
    /// How many of those somebody heard of.
    told: u64,
}

impl Durability {
    /// A request is submitted.
    pub const fn begin(&self) -> Ticket {
        Ticket { written: self.written, losses: self.losses }
    }

    /// How often the connection broke with writes that were not settled.
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// A write completed into the cache.
    pub const fn written(&mut self) {
        self.written += 1;
    }

    /// A flush succeeded. It covers what had completed when it was submitted.
    ///
    /// # Errors
    /// When that may be lost.
    pub fn flushed(&mut self, ticket: Ticket) -> Result<(), Lost> {
        self.settled = self.settled.max(ticket.written);
        self.confirmed(ticket)
    }

    /// A write is on stable storage, and covers only itself.
    ///
    /// # Errors
    /// When others may be lost and nobody was told yet.
    pub fn confirmed(&mut self, ticket: Ticket) -> Result<(), Lost> {
        // Everything that was under way when it happened is told, then or not: several may cover the same write.
        let lost = self.told < self.losses || ticket.losses < self.losses;
        self.told = self.losses;
        if lost { Err(Lost) } else { Ok(()) }
    }

    /// The connection broke.
    pub const fn broken(&mut self) {
        if self.settled < self.written {
            self.settled = self.written;
            self.losses += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_without_unflushed_writes_is_told_to_nobody() {
        let mut state = Durability::default();
        state.broken();
        assert_eq!(state.flushed(state.begin()), Ok(()));
        state.written();
        assert_eq!(state.flushed(state.begin()), Ok(()));
        state.broken();
        assert_eq!(state.flushed(state.begin()), Ok(()));
    }

    #[test]
    fn the_next_flush_fails_once() {
        let mut state = Durability::default();
        state.written();
        state.broken();
        state.broken();
        assert_eq!(state.flushed(state.begin()), Err(Lost));
        assert_eq!(state.flushed(state.begin()), Ok(()));
    }

    #[test]
    fn a_durable_write_hears_of_it_too_but_flushes_nothing() {
        let mut state = Durability::default();
        state.written();
        assert_eq!(state.confirmed(state.begin()), Ok(()));
        state.broken();
        assert_eq!(state.confirmed(state.begin()), Err(Lost));
        assert_eq!(state.flushed(state.begin()), Ok(()));
    }

    #[test]
    fn every_flush_that_was_under_way_fails() {
        let mut state = Durability::default();
        state.written();
        let (one, two) = (state.begin(), state.begin());
        state.broken();
        let later = state.begin();
        assert_eq!((state.flushed(one), state.flushed(two)), (Err(Lost), Err(Lost)));
        assert_eq!(state.flushed(later), Ok(()));
    }

    #[test]
    fn a_flush_does_not_cover_what_completed_after_it_was_submitted() {
        let mut state = Durability::default();
        let flush = state.begin();
        state.written();
        assert_eq!(state.flushed(flush), Ok(()));
        state.broken();
        assert_eq!(state.flushed(state.begin()), Err(Lost));
    }
}
