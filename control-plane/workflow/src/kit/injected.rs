//! A step with a fault in it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;

use super::journal::MemoryJournal;
use crate::{Observed, Step, StepError};

/// What goes wrong in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is done twice, one right after the other.
    Twice,
    /// It fails for good before it had an effect, a number of times.
    FailBefore(usize),
    /// It fails for good after its effect, a number of times.
    FailAfter(usize),
    /// It fails in a way that may pass, after its effect, a number of times.
    Stumble(usize),
    /// It fails for good after its effect, and its undo fails in the same way a number of times.
    UndoStumble(usize),
    /// Its process dies when it has had to wait for something that often.
    CutOff(usize),
    /// It fails for good after its effect, and its process dies so in its undo.
    UndoCutOff(usize),
}

/// A fault and the step it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Injection {
    pub step: usize,
    pub fault: Fault,
}

/// A step around another.
pub(super) struct Injected<C> {
    pub inner: Box<dyn Step<C>>,
    pub fault: Option<Fault>,
    pub journal: Arc<MemoryJournal>,
    /// How often the fault has happened. A proof in which it never did proves nothing.
    pub happened: Arc<AtomicUsize>,
    /// Whether the step was looked at: the first look of a faulty step says "not done", so that it is done, also
    /// when its effect is there already.
    pub looked: AtomicBool,
}

impl<C> Injected<C> {
    fn happens(&self, at_most: usize) -> bool {
        let happens = self.happened.load(Ordering::Relaxed) < at_most;
        if happens {
            self.happened.fetch_add(1, Ordering::Relaxed);
            // It must be done again, whatever it has left.
            self.looked.store(false, Ordering::Relaxed);
        }
        happens
    }

    /// Lets work go on until it has waited `waits` times, then drops it, as the end of its process would.
    async fn cut_off(
        &self,
        waits: usize,
        work: impl Future<Output = Result<(), StepError>>,
    ) -> Result<(), StepError> {
        if self.happened.load(Ordering::Relaxed) > 0 {
            return work.await;
        }
        let mut work = pin!(work);
        let mut waited = 0;
        let ended = poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if waited == waits => Poll::Ready(None),
            Poll::Pending => {
                waited += 1;
                Poll::Pending
            }
        })
        .await;
        match ended {
            Some(result) => result,
            None => {
                self.happened.fetch_add(1, Ordering::Relaxed);
                self.journal.crash_next();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl<C: Send + Sync> Step<C> for Injected<C> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn observe(&self, context: &C) -> Result<Observed, StepError> {
        if self.fault.is_some() && !self.looked.swap(true, Ordering::Relaxed) {
            return Ok(Observed::NotDone);
        }
        self.inner.observe(context).await
    }

    async fn apply(&self, context: &C) -> Result<(), StepError> {
        let name = self.name();
        match self.fault {
            Some(Fault::FailBefore(times)) if self.happens(times) => {
                Err(StepError::never(format!("{name}: injected failure before its effect")))
            }
            Some(Fault::CutOff(waits)) => self.cut_off(waits, self.inner.apply(context)).await,
            fault => {
                self.inner.apply(context).await?;
                match fault {
                    Some(Fault::Twice) if self.happens(1) => self.inner.apply(context).await,
                    Some(Fault::FailAfter(times)) if self.happens(times) => {
                        Err(StepError::never(format!("{name}: injected failure after its effect")))
                    }
                    Some(Fault::UndoStumble(_) | Fault::UndoCutOff(_)) => {
                        Err(StepError::never(format!("{name}: injected failure, so that it is undone")))
                    }
                    Some(Fault::Stumble(times)) if self.happens(times) => {
                        Err(StepError::later(format!("{name}: injected failure that passes")))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    async fn undo(&self, context: &C) -> Result<(), StepError> {
        if let Some(Fault::UndoCutOff(waits)) = self.fault {
            return self.cut_off(waits, self.inner.undo(context)).await;
        }
        self.inner.undo(context).await?;
        // What was undone once may be undone again.
        self.inner.undo(context).await?;
        match self.fault {
            Some(Fault::UndoStumble(times)) if self.happens(times) => {
                Err(StepError::later(format!("{}: injected failure of its undo", self.name())))
            }
            _ => Ok(()),
        }
    }
}
