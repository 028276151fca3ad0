//! Flushes of one device, from several threads: together, and so that every loss is heard of by all it concerns.
//!
//! The kernel tells a failed write-back once for each open file (fsync(2)), to whoever asks first, and then takes the
//! pages for clean. Here it is counted instead: whoever had work that the failed flush may have been about hears of it.
//!
//! Invariant: between the beginning of work and its flush that is reported done, no flush of the device has failed; and
//! no SYNCHRONIZE CACHE is reported done as long as a failure was told to none.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{BlockError, Operation};

/// What was known when work began.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    losses: u64,
}

/// Whose flush it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Of work that has to be durable, and of nothing else.
    Own,
    /// Of everything that was done before.
    All,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    over: u64,
    running: bool,
    /// Flushes that failed.
    losses: u64,
    /// Of those, how many a flush of everything has told.
    told: u64,
    /// The store had no space for what was lost last.
    full: bool,
}

/// The flushes of one device.
#[derive(Debug, Default)]
pub struct Stable {
    state: Mutex<State>,
    ended: Condvar,
}

impl Stable {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before work begins that will be flushed.
    pub fn mark(&self) -> Mark {
        Mark { losses: self.state().losses }
    }

    /// Has everything flushed that was done before, by `device`, which returns when it is on stable storage. One flush
    /// serves all who wait for one.
    ///
    /// # Errors
    /// When a flush failed since the mark, or, of everything, when one did that was told to none.
    pub fn flush(
        &self,
        flush: Flush,
        since: Mark,
        device: impl Fn() -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let mut state = self.state();
        // One that is under way may have begun too early.
        let wanted = state.begun + 1;
        let mut own = None;
        while state.over < wanted {
            if state.running {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            drop(state);
            let result = device();
            state = self.state();
            state.running = false;
            state.over = state.begun;
            if let Err(error) = result {
                state.losses += 1;
                state.full = matches!(error, BlockError::NoSpace { .. });
                own = Some(error);
            }
            self.ended.notify_all();
        }
        let lost = state.losses > since.losses || flush == Flush::All && state.losses > state.told;
        if flush == Flush::All {
            state.told = state.losses;
        }
        if lost { Err(own.unwrap_or_else(|| state.error())) } else { Ok(()) }
    }
}

impl State {
    fn error(&self) -> BlockError {
        if self.full {
            return BlockError::NoSpace { operation: Operation::Flush, offset: 0 };
        }
        let source = std::io::Error::other("an earlier flush failed; what was written may be lost");
        BlockError::Io { operation: Operation::Flush, offset: 0, source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn broken() -> Result<(), BlockError> {
        Err(BlockError::NoSpace { operation: Operation::Flush, offset: 0 })
    }

    #[test]
    fn a_failure_is_heard_by_all_whose_work_it_may_concern() {
        let stable = Stable::default();
        let (one, two) = (stable.mark(), stable.mark());
        assert!(stable.flush(Flush::Own, one, broken).is_err());
        // The device says nothing of it a second time.
        assert!(matches!(stable.flush(Flush::Own, two, || Ok(())), Err(BlockError::NoSpace { .. })));
        assert!(stable.flush(Flush::Own, stable.mark(), || Ok(())).is_ok(), "what began later is there");
        // Those were told of their own work. Of the rest nobody was.
        assert!(stable.flush(Flush::All, stable.mark(), || Ok(())).is_err());
        assert!(stable.flush(Flush::All, stable.mark(), || Ok(())).is_ok(), "told once");
        let under_way = stable.mark();
        assert!(stable.flush(Flush::All, stable.mark(), broken).is_err());
        assert!(stable.flush(Flush::All, under_way, || Ok(())).is_err(), "it was under way then");
    }

    #[test]
    fn those_who_wait_are_served_by_one_flush_that_began_after_they_came() {
        let (stable, count) = (Stable::default(), AtomicUsize::new(0));
        let (begun, has_begun) = channel();
        let (go, may_go) = channel::<()>();
        std::thread::scope(|scope| {
            let (stable, count) = (&stable, &count);
            scope.spawn(move || {
                let first = || {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    Ok(())
                };
                stable.flush(Flush::All, stable.mark(), first).unwrap();
            });
            has_begun.recv().unwrap();
            let others: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        let counted = || {
                            count.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        stable.flush(Flush::Own, stable.mark(), counted).unwrap();
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert_eq!(count.load(Ordering::SeqCst), 0, "the one under way may have begun too early");
            go.send(()).unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
