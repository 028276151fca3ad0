//! One run of a scenario to its end, with a fault in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use bmi_types::Timestamp;

use super::Scenario;
use super::injected::{Injected, Injection};
use super::journal::{Crash, MemoryJournal};
use crate::{Engine, Entry, Journal, Outcome, Ran, Record, Step, Workflow};

/// More rounds than any workflow needs: a bound on a proof that does not end.
const ROUNDS_MAX: usize = 500;

/// What a run was.
pub(super) struct Run {
    /// How it ended.
    pub outcome: Outcome,
    /// What was written.
    pub records: Vec<Record>,
    /// How often the injected fault happened.
    pub faults: usize,
    /// How often the process died.
    pub crashes: usize,
}

/// Runs a scenario to its end.
pub(super) async fn run<C: Send + Sync + 'static>(
    scenario: &Arc<dyn Scenario<C>>,
    injection: Option<Injection>,
    crash: Crash,
) -> Result<Run, String> {
    let workflow = scenario.workflow();
    let kind = workflow.kind;
    let journal = Arc::new(MemoryJournal::new(kind, crash));
    let happened = Arc::new(AtomicUsize::new(0));
    let inject = |(index, inner): (usize, Box<dyn Step<C>>)| -> Box<dyn Step<C>> {
        Box::new(Injected {
            inner,
            fault: injection.filter(|injection| injection.step == index).map(|injection| injection.fault),
            journal: Arc::clone(&journal),
            happened: Arc::clone(&happened),
            looked: AtomicBool::new(false),
        })
    };
    let steps = workflow.steps.into_iter().enumerate().map(inject).collect();
    let workflow = Workflow { kind, steps, on_failure: workflow.on_failure };
    let now = Arc::new(AtomicI64::new(1));
    let (clock, source) = (Arc::clone(&now), Arc::clone(scenario));
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
            let faults = happened.load(Ordering::Relaxed);
            return Ok(Run { outcome: *outcome, crashes: journal.crashes(), faults, records });
        }
    }
    Err(format!("not finished after {ROUNDS_MAX} rounds: {:?}", journal.entries()))
}
