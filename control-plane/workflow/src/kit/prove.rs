//! The proof: every fault once, and what must have come of it.

use std::sync::Arc;

use super::Scenario;
use super::injected::{Fault, Injection};
use super::journal::Crash;
use super::run::{Run, run};
use crate::{Entry, OnFailure, Outcome, State};

/// Failures that pass, in a row: one less than a step is tried.
const STUMBLES: usize = 5;
/// Failures of an undo in a row: enough to be stuck, and then to pass.
const UNDO_STUMBLES: usize = 6;
/// Failures for good of what persists: it is stuck twice, and then it passes.
const FAILURES: usize = 2;
/// The most places at which one step is cut off: a bound on a step that waits for ever.
const CUTS_MAX: usize = 64;

/// How many runs with each kind of fault ended as they must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proven {
    /// Without a fault.
    pub happy: usize,
    /// A step done twice.
    pub twice: usize,
    /// A step that failed for good, before its effect or after it.
    pub failed: usize,
    /// A step that failed a few times and then did not.
    pub stumbled: usize,
    /// A step whose undo failed until it was stuck, and then did not.
    pub undo_stumbled: usize,
    /// A crash before or after each record of a run without a fault.
    pub crashed: usize,
    /// A crash before or after each record of a run whose step failed for good.
    pub crashed_after_failure: usize,
    /// Steps whose process died at each place where they wait.
    pub cut: usize,
    /// The same of their undos.
    pub undo_cut: usize,
}

impl Proven {
    /// What a proof of a workflow of so many steps counts.
    #[must_use]
    pub fn of_steps(steps: usize, on_failure: OnFailure) -> Self {
        let records = steps * 2 + 1;
        let (undo, after_failure): (usize, usize) = match on_failure {
            // Step n of a run that fails: n done, n begun and failed, n + 1 undone, and the end.
            OnFailure::Unwind => (steps, (0..steps).map(|step| step * 2 + 2 + (step + 1) * 2 + 1).sum()),
            OnFailure::Persist => (0, steps * (records + FAILURES * 2)),
        };
        Self {
            happy: 1,
            twice: steps,
            failed: steps * 2,
            stumbled: steps,
            undo_stumbled: undo,
            crashed: records * 2,
            crashed_after_failure: after_failure * 2,
            cut: steps,
            undo_cut: undo,
        }
    }
}

/// Proves a workflow under every fault.
///
/// # Errors
/// The first thing found wrong, with the fault that led to it.
pub async fn prove<C, F, S>(fresh: F) -> Result<Proven, String>
where
    C: Send + Sync + 'static,
    F: FnMut() -> S + Send,
    S: Future<Output = Arc<dyn Scenario<C>>> + Send,
{
    let mut proof = Proof { fresh, proven: Proven::default() };
    let workflow = (proof.fresh)().await.workflow();
    let (steps, on_failure) = (workflow.steps.len(), workflow.on_failure);
    proof.forward(steps).await?;
    match on_failure {
        OnFailure::Unwind => proof.unwinding(steps).await?,
        OnFailure::Persist => proof.persisting(steps).await?,
    }
    Ok(proof.proven)
}

struct Proof<F> {
    fresh: F,
    proven: Proven,
}

impl<C, F, S> Proof<F>
where
    C: Send + Sync + 'static,
    F: FnMut() -> S + Send,
    S: Future<Output = Arc<dyn Scenario<C>>> + Send,
{
    /// One run in a fresh world, whose outcome and world must be as expected.
    async fn one(
        &mut self,
        injection: Option<Injection>,
        crash: Crash,
        expected: Outcome,
    ) -> Result<Run, String> {
        let scenario = (self.fresh)().await;
        let what = format!("{injection:?}, crash {crash:?}");
        let run = run(&scenario, injection, crash).await.map_err(|fault| format!("{what}: {fault}"))?;
        if run.outcome != expected {
            return Err(format!("{what}: ended {:?}, expected {expected:?}: {:?}", run.outcome, run.records));
        }
        if crash != Crash::No && run.crashes == 0 {
            return Err(format!("{what}: the process did not crash"));
        }
        let faults = match run.outcome {
            Outcome::Succeeded => scenario.faults_after_success().await,
            Outcome::Failed => scenario.faults_after_failure().await,
        };
        if faults.is_empty() { Ok(run) } else { Err(format!("{what}: {}", faults.join("; "))) }
    }

    /// The same with a fault that must happen.
    async fn fault(
        &mut self,
        step: usize,
        fault: Fault,
        times: usize,
        expected: Outcome,
    ) -> Result<Run, String> {
        let injection = Injection { step, fault };
        let run = self.one(Some(injection), Crash::No, expected).await?;
        if run.faults == times {
            return Ok(run);
        }
        Err(format!("{injection:?}: the fault happened {} times, expected {times}", run.faults))
    }

    /// A crash before and after each of so many records.
    async fn crashes(
        &mut self,
        injection: Option<Injection>,
        records: usize,
        expected: Outcome,
    ) -> Result<usize, String> {
        for record in 1..=records {
            self.one(injection, Crash::Before(record), expected).await?;
            self.one(injection, Crash::After(record), expected).await?;
        }
        Ok(records * 2)
    }

    /// Cuts one step off at each place where it waits.
    async fn cuts(
        &mut self,
        step: usize,
        fault: impl Fn(usize) -> Fault + Send,
        expected: Outcome,
    ) -> Result<(), String> {
        for waits in 0..CUTS_MAX {
            let injection = Injection { step, fault: fault(waits) };
            let run = self.one(Some(injection), Crash::No, expected).await?;
            if run.faults == 0 {
                return Ok(());
            }
            if run.crashes != 1 {
                return Err(format!("{injection:?}: cut off, but the process did not crash"));
            }
        }
        Err(format!("step {step} waits more than {CUTS_MAX} times"))
    }

    /// Everything that ends in success.
    async fn forward(&mut self, steps: usize) -> Result<(), String> {
        let records = self.one(None, Crash::No, Outcome::Succeeded).await?.records.len();
        self.proven.happy += 1;
        for step in 0..steps {
            self.fault(step, Fault::Twice, 1, Outcome::Succeeded).await?;
            self.proven.twice += 1;
            let run = self.fault(step, Fault::Stumble(STUMBLES), STUMBLES, Outcome::Succeeded).await?;
            let begun =
                run.records.iter().filter(|record| record.entry == Entry::StepStarted { step }).count();
            if begun != STUMBLES + 1 {
                return Err(format!("step {step} failed {STUMBLES} times and was begun {begun} times"));
            }
            self.proven.stumbled += 1;
            self.cuts(step, Fault::CutOff, Outcome::Succeeded).await?;
            self.proven.cut += 1;
        }
        self.proven.crashed += self.crashes(None, records, Outcome::Succeeded).await?;
        Ok(())
    }

    /// What fails for good leaves nothing.
    async fn unwinding(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            let always = usize::MAX;
            self.fault(step, Fault::FailBefore(always), 1, Outcome::Failed).await?;
            let after = Fault::FailAfter(always);
            let records = self.fault(step, after, 1, Outcome::Failed).await?.records.len();
            self.proven.failed += 2;
            let injection = Injection { step, fault: after };
            self.proven.crashed_after_failure +=
                self.crashes(Some(injection), records, Outcome::Failed).await?;
            let stumble = Fault::UndoStumble(UNDO_STUMBLES);
            let run = self.fault(step, stumble, UNDO_STUMBLES, Outcome::Failed).await?;
            stuck_on_the_way(&run, steps, OnFailure::Unwind)?;
            self.proven.undo_stumbled += 1;
            self.cuts(step, Fault::UndoCutOff, Outcome::Failed).await?;
            self.proven.undo_cut += 1;
        }
        Ok(())
    }

    /// What takes away is stuck after a failure for good, visibly, and then goes on.
    async fn persisting(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            for fault in [Fault::FailBefore(FAILURES), Fault::FailAfter(FAILURES)] {
                let run = self.fault(step, fault, FAILURES, Outcome::Succeeded).await?;
                stuck_on_the_way(&run, steps, OnFailure::Persist)?;
                self.proven.failed += 1;
                if let Fault::FailAfter(_) = fault {
                    let (injection, records) = (Injection { step, fault }, run.records.len());
                    self.proven.crashed_after_failure +=
                        self.crashes(Some(injection), records, Outcome::Succeeded).await?;
                }
            }
        }
        Ok(())
    }
}

/// What is blocked must be seen to be.
fn stuck_on_the_way(run: &Run, steps: usize, on_failure: OnFailure) -> Result<(), String> {
    let stuck = |at: usize| State::fold(steps, on_failure, run.records.iter().take(at)).is_stuck();
    if (1..=run.records.len()).any(stuck) {
        return Ok(());
    }
    Err(format!("blocked, and nobody saw it stuck: {:?}", run.records))
}
