//! What a session asked of its disk, and how long that took.
//!
//! The clock is read once for a batch, not for each command: what is answered together has waited together.

use std::time::{Duration, Instant};

use bmi_agent_api::event::{LATENCY_BOUNDS, Requests, SessionStatistics};
use bmi_iscsi::{Outcome, Work};

use crate::disk::Moved;

/// The least time between two events.
const EVERY: Duration = Duration::from_secs(5);

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Flush,
    Other,
}

impl Kind {
    pub const fn of(work: &Work) -> Self {
        match work {
            Work::Read(_) => Self::Read,
            Work::Flush | Work::FlushAll => Self::Flush,
            work if work.writes() => Self::Write,
            _ => Self::Other,
        }
    }
}

/// Requests of which it is not said yet how long they took.
#[derive(Debug, Default)]
struct Open {
    count: u64,
    failed: u64,
    bytes: u64,
}

/// The statistics of one session.
#[derive(Debug)]
pub struct Statistics {
    total: SessionStatistics,
    /// In the order of [`Kind`].
    open: [Open; 4],
    changed: bool,
    reported_at: Instant,
}

impl Statistics {
    pub fn new(now: Instant) -> Self {
        Self {
            total: SessionStatistics::default(),
            open: Default::default(),
            changed: false,
            reported_at: now,
        }
    }

    /// A request of the present batch is over.
    pub fn count(&mut self, kind: Kind, moved: Moved, outcome: &Outcome) {
        let [read, write, flush, other] = &mut self.open;
        let open = match kind {
            Kind::Read => read,
            Kind::Write => write,
            Kind::Flush => flush,
            Kind::Other => other,
        };
        open.count += 1;
        open.failed += u64::from(matches!(outcome, Outcome::Failed(_)));
        open.bytes += moved.read + moved.written;
    }

    /// The batch is over: everything in it took this long.
    pub fn close(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        let total = &mut self.total;
        let totals = [&mut total.read, &mut total.write, &mut total.flush, &mut total.other];
        for (open, Requests { failed, bytes, micros: sum, latency }) in self.open.iter_mut().zip(totals) {
            let Open { count, failed: more_failed, bytes: more_bytes } = std::mem::take(open);
            *failed += more_failed;
            *bytes += more_bytes;
            *sum = sum.saturating_add(micros.saturating_mul(count));
            if let Some(class) = latency.get_mut(class) {
                *class += count;
            }
            self.changed |= count > 0;
        }
    }

    /// Whether a batch has something in it.
    pub fn is_open(&self) -> bool {
        self.open.iter().any(|open| open.count > 0)
    }

    /// When [`Self::take`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        self.changed.then(|| self.reported_at + EVERY)
    }

    /// What is to be reported, if it is time.
    pub fn take(&mut self, now: Instant) -> Option<SessionStatistics> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        self.reported_at = now;
        self.take_last()
    }

    /// What is to be reported, whatever the time.
    pub fn take_last(&mut self) -> Option<SessionStatistics> {
        std::mem::take(&mut self.changed).then_some(self.total)
    }
}

#[cfg(test)]
mod tests {
    use bmi_iscsi::{Fault, Range};

    use super::*;

    const READ: Moved = Moved { read: 4096, written: 0 };

    #[test]
    fn requests_are_counted_by_kind_and_by_how_long_they_took() {
        let now = Instant::now();
        let mut statistics = Statistics::new(now);
        assert_eq!(statistics.deadline(), None, "nothing happened");
        let range = Range { offset: 0, length: 4096 };
        let kind = Kind::of(&Work::Read(range));
        statistics.count(kind, READ, &Outcome::Stored(range));
        statistics.count(kind, READ, &Outcome::Stored(range));
        statistics.count(Kind::of(&Work::Flush), Moved::default(), &Outcome::Failed(Fault::Write));
        assert!(statistics.is_open());
        statistics.close(Duration::from_micros(50));
        assert!(!statistics.is_open());
        statistics.count(kind, READ, &Outcome::Stored(range));
        statistics.close(Duration::from_micros(51));
        statistics.count(
            Kind::of(&Work::Zero { range, unmap: true, durable: false }),
            Moved::default(),
            &Outcome::Done,
        );
        statistics.close(Duration::from_secs(6));
        assert_eq!(statistics.take(now), None, "it is not time");
        let told = statistics.take(now + EVERY).unwrap();
        assert_eq!(
            (told.read.latency.iter().sum::<u64>(), told.read.bytes, told.read.micros),
            (3, 3 * 4096, 151)
        );
        assert_eq!(told.read.latency, [0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((told.flush.latency.iter().sum::<u64>(), told.flush.failed), (1, 1));
        assert_eq!(told.write.latency, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(told.other, Requests::default());
        assert_eq!(statistics.take(now + 2 * EVERY), None, "nothing has changed");
        assert_eq!(statistics.take_last(), None);
    }
}
