//! Trying again for ever: a longer pause after each failure, and a line in the log for the first of a kind.

use std::error::Error;
use std::time::Duration;

use bmi_types::chain;

/// Pauses that double from the first to the longest.
pub struct Patience {
    first: Duration,
    longest: Duration,
    next: Duration,
    said: String,
}

impl Patience {
    /// None has been needed so far.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, said: String::new() }
    }

    /// Something went well.
    pub fn reset(&mut self) {
        *self = Self::new(self.first, self.longest);
    }

    /// Waits after a failure; logs it unless it is the same as before.
    pub async fn after(&mut self, error: &(dyn Error + Sync), doing: &str) {
        let says = chain(error);
        if says != self.said {
            tracing::warn!(error = says, "{doing} failed; trying again until it works");
            self.said = says;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}
