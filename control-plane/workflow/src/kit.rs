//! The test kit: proves that a workflow survives what can happen to it.
//!
//! [`prove`] takes a way to build a fresh [`Scenario`] and runs its workflow on a journal in memory under every
//! fault of four kinds: none; each step done twice; a failure for good before and after the effect of each step;
//! and a crash after each record. The scenario answers what the world looks like afterwards.
//!
//! Deliberately absent: real time. The clock jumps to the next due time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{OperationId, Timestamp};

use crate::{
    Claim, Engine, Entry, Journal, JournalError, Observed, OnFailure, Outcome, Ran, Record, State, Step, StepError,
    Summary, Workflow,
};

/// More rounds than any workflow needs: a bound on a proof that does not end.
const ROUNDS_MAX: usize = 500;

/// One world, with one operation on it.
#[async_trait]
pub trait Scenario<C>: Send + Sync {
    /// The workflow under proof.
    fn workflow(&self) -> Workflow<C>;
    /// What its steps work with.
    fn context(&self, claim: &Claim) -> C;
    /// What is wrong with the world after success. Empty when it is whole.
    async fn faults_after_success(&self) -> Vec<String>;
    /// What is left in the world after a failure. Empty when it is as before.
    async fn faults_after_failure(&self) -> Vec<String>;
}

/// A journal in memory that can crash its user after a number of records.
pub struct MemoryJournal {
    inner: Mutex<Memory>,
}

struct Memory {
    claim: Claim,
    records: Vec<Record>,
    due: Option<Timestamp>,
    held_until: Timestamp,
    crash_after: Option<usize>,
}

impl MemoryJournal {
    /// A journal with one operation. It fails every call from the record `crash_after` on, once.
    #[must_use]
    pub fn new(kind: &str, crash_after: Option<usize>) -> Self {
        let claim = Claim { operation: OperationId::generate(), kind: kind.to_owned(), epoch: 0 };
        let zero = Timestamp::from_micros(0);
        Self {
            inner: Mutex::new(Memory { claim, records: Vec::new(), due: Some(zero), held_until: zero, crash_after }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the operation is due, if ever.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let memory = self.lock();
        memory.due.map(|due| due.max(memory.held_until))
    }

    /// The records so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Record> {
        self.lock().records.clone()
    }
}

impl Memory {
    fn check(&self, claim: &Claim) -> Result<(), JournalError> {
        if claim.epoch == self.claim.epoch {
            return Ok(());
        }
        Err(JournalError::Fenced { operation: claim.operation, epoch: claim.epoch })
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn claim(&self, _owner: &str, now: Timestamp, lease: Duration) -> Result<Option<Claim>, JournalError> {
        let mut memory = self.lock();
        if memory.due.is_none_or(|due| due > now) || memory.held_until > now {
            return Ok(None);
        }
        memory.claim.epoch += 1;
        memory.held_until = now.plus(lease);
        Ok(Some(memory.claim.clone()))
    }

    async fn records(&self, _operation: OperationId) -> Result<Vec<Record>, JournalError> {
        Ok(self.lock().records.clone())
    }

    async fn append(
        &self,
        claim: &Claim,
        record: &Record,
        _summary: Summary<'_>,
        lease: Duration,
    ) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        memory.records.push(record.clone());
        memory.held_until = record.at.plus(lease);
        if memory.crash_after.is_some_and(|after| memory.records.len() >= after) {
            // The record is written, the writer does not live to hear it.
            memory.crash_after = None;
            return Err(JournalError::Store { action: "go on: crashed on purpose", source: "crash".into() });
        }
        Ok(())
    }

    async fn renew(&self, claim: &Claim, now: Timestamp, lease: Duration) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        memory.held_until = now.plus(lease);
        Ok(())
    }

    async fn release(&self, claim: &Claim, due: Option<Timestamp>) -> Result<(), JournalError> {
        let mut memory = self.lock();
        memory.check(claim)?;
        memory.due = due;
        memory.held_until = Timestamp::from_micros(0);
        Ok(())
    }
}

/// A fault to inject into one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Injection {
    None,
    Twice(usize),
    FailBefore(usize),
    FailAfter(usize),
}

struct Injected<C> {
    inner: Box<dyn Step<C>>,
    index: usize,
    injection: Injection,
    /// How often an injected failure still happens; a workflow that persists must get past it.
    left: AtomicI64,
}

#[async_trait]
impl<C: Send + Sync> Step<C> for Injected<C> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn observe(&self, context: &C) -> Result<Observed, StepError> {
        self.inner.observe(context).await
    }

    async fn apply(&self, context: &C) -> Result<(), StepError> {
        let fail = || match self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            true => Err(StepError::never(format!("injected failure of step {}", self.index))),
            false => Ok(()),
        };
        if self.injection == Injection::FailBefore(self.index) {
            fail()?;
        }
        self.inner.apply(context).await?;
        if self.injection == Injection::FailAfter(self.index) {
            fail()?;
        }
        if self.injection == Injection::Twice(self.index) {
            self.inner.apply(context).await?;
        }
        Ok(())
    }

    async fn undo(&self, context: &C) -> Result<(), StepError> {
        self.inner.undo(context).await?;
        // What was undone once may be undone again.
        self.inner.undo(context).await
    }
}

/// Runs a scenario to its end; answers how it ended and how many records it took.
async fn run<C: Send + Sync + 'static>(
    scenario: Arc<dyn Scenario<C>>,
    injection: Injection,
    crash_after: Option<usize>,
) -> Result<(Outcome, usize), String> {
    let workflow = scenario.workflow();
    let (kind, on_failure, steps) = (workflow.kind, workflow.on_failure, workflow.steps.len());
    let workflow = Workflow {
        kind,
        on_failure,
        steps: workflow
            .steps
            .into_iter()
            .enumerate()
            .map(|(index, inner)| -> Box<dyn Step<C>> {
                Box::new(Injected { inner, index, injection, left: AtomicI64::new(1) })
            })
            .collect(),
    };
    let journal = Arc::new(MemoryJournal::new(kind, crash_after));
    let now = Arc::new(AtomicI64::new(1));
    let clock = Arc::clone(&now);
    let source = Arc::clone(&scenario);
    let engine = Engine::new(
        Arc::clone(&journal) as Arc<dyn Journal>,
        vec![workflow],
        "kit",
        move |claim| source.context(claim),
        move || Timestamp::from_micros(clock.fetch_add(1, Ordering::Relaxed)),
    );
    for _ in 0..ROUNDS_MAX {
        if matches!(engine.run_once().await, Ok(Ran::Idle))
            && let Some(due) = journal.due()
        {
            now.fetch_max(due.micros(), Ordering::Relaxed);
        }
        let records = journal.entries();
        if let Some(Record { entry: Entry::Finished { outcome }, .. }) = records.last() {
            debug_assert_eq!(State::fold(steps, on_failure, &records).next(Timestamp::from_micros(i64::MAX)), crate::Decision::Nothing);
            return Ok((*outcome, records.len()));
        }
    }
    Err(format!("not finished after {ROUNDS_MAX} rounds: {:?}", journal.entries()))
}

/// Proves a workflow: happy path, each step twice, a failure at each step, a crash after each record.
///
/// # Errors
/// The first fault found, with what was injected.
pub async fn prove<C, F, S>(mut fresh: F) -> Result<BTreeMap<&'static str, usize>, String>
where
    C: Send + Sync + 'static,
    F: FnMut() -> S,
    S: Future<Output = Arc<dyn Scenario<C>>>,
{
    let mut proven = BTreeMap::new();
    let scenario = fresh().await;
    let (steps, on_failure) = {
        let workflow = scenario.workflow();
        (workflow.steps.len(), workflow.on_failure)
    };
    let (outcome, records) = run(Arc::clone(&scenario), Injection::None, None).await?;
    verdict("happy path", &*scenario, outcome, Outcome::Succeeded).await?;
    proven.insert("happy path", 1);

    for step in 0..steps {
        let scenario = fresh().await;
        let (outcome, _) = run(Arc::clone(&scenario), Injection::Twice(step), None).await?;
        verdict(&format!("step {step} twice"), &*scenario, outcome, Outcome::Succeeded).await?;
        *proven.entry("each step twice").or_default() += 1;

        for injection in [Injection::FailBefore(step), Injection::FailAfter(step)] {
            let scenario = fresh().await;
            let (outcome, _) = run(Arc::clone(&scenario), injection, None).await?;
            let expected = match on_failure {
                OnFailure::Unwind if outcome == Outcome::Failed => Outcome::Failed,
                // A step whose effect is there already is never applied, so it cannot be made to fail.
                OnFailure::Unwind | OnFailure::Persist => Outcome::Succeeded,
            };
            verdict(&format!("{injection:?}"), &*scenario, outcome, expected).await?;
            if outcome == Outcome::Failed || on_failure == OnFailure::Persist {
                *proven.entry("failure at each step").or_default() += 1;
            }
        }
    }
    for after in 1..=records {
        let scenario = fresh().await;
        let (outcome, _) = run(Arc::clone(&scenario), Injection::None, Some(after)).await?;
        verdict(&format!("crash after record {after}"), &*scenario, outcome, Outcome::Succeeded).await?;
        *proven.entry("crash after each record").or_default() += 1;
    }
    Ok(proven)
}

async fn verdict<C>(
    what: &str,
    scenario: &dyn Scenario<C>,
    outcome: Outcome,
    expected: Outcome,
) -> Result<(), String> {
    if outcome != expected {
        return Err(format!("{what}: ended {outcome:?}, expected {expected:?}"));
    }
    let faults = match outcome {
        Outcome::Succeeded => scenario.faults_after_success().await,
        Outcome::Failed => scenario.faults_after_failure().await,
    };
    if faults.is_empty() { Ok(()) } else { Err(format!("{what}: {}", faults.join("; "))) }
}
