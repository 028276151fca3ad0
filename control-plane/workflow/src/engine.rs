//! The engine: claims an operation, does what its state decides, and writes down what it did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmi_types::Timestamp;

use crate::{
    Claim, Decision, Entry, Journal, JournalError, Observed, Record, State, Step, StepError, Summary,
    Workflow,
};

/// How long a claim lasts without a sign of life. A dead engine's operations are taken over after it.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often a claim is renewed while a step runs: often enough that two losses do not end it.
const RENEWAL: Duration = Duration::from_secs(4);

/// Why the engine stopped working on an operation. Another claim goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The journal refused or failed.
    #[error("the journal of an operation could not be used")]
    Journal(#[from] JournalError),
    /// No workflow has that kind: the operation was written by a newer version.
    #[error("no workflow is called `{kind}`")]
    UnknownKind {
        /// The kind.
        kind: String,
    },
}

/// What one call of [`Engine::run_once`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// Nothing was due.
    Idle,
    /// An operation was worked on until it was finished or has to wait.
    Worked,
}

/// Runs the operations of a journal. `C` is what steps work with.
pub struct Engine<C> {
    journal: Arc<dyn Journal>,
    workflows: HashMap<&'static str, Workflow<C>>,
    owner: String,
    context: Box<dyn Fn(&Claim) -> C + Send + Sync>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl<C: Send + Sync> Engine<C> {
    /// An engine named `owner`, which makes a context for each claim.
    pub fn new(
        journal: Arc<dyn Journal>,
        workflows: Vec<Workflow<C>>,
        owner: impl Into<String>,
        context: impl Fn(&Claim) -> C + Send + Sync + 'static,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            journal,
            workflows: workflows.into_iter().map(|workflow| (workflow.kind, workflow)).collect(),
            owner: owner.into(),
            context: Box::new(context),
            clock: Box::new(clock),
        }
    }

    /// Claims one due operation and works on it until it is finished or has to wait.
    ///
    /// # Errors
    /// When the journal fails or another engine took over. The operation is not lost.
    pub async fn run_once(&self) -> Result<Ran, EngineError> {
        let Some(claim) = self.journal.claim(&self.owner, (self.clock)(), LEASE).await? else {
            return Ok(Ran::Idle);
        };
        let due = self.drive(&claim).await?;
        self.journal.release(&claim, due).await?;
        Ok(Ran::Worked)
    }

    /// Works on a claimed operation; answers when it is due again.
    async fn drive(&self, claim: &Claim) -> Result<Option<Timestamp>, EngineError> {
        let workflow = self
            .workflows
            .get(claim.kind.as_str())
            .ok_or_else(|| EngineError::UnknownKind { kind: claim.kind.clone() })?;
        let context = (self.context)(claim);
        let records = self.journal.records(claim.operation).await?;
        let mut state = State::fold(workflow.steps.len(), workflow.on_failure, &records);
        loop {
            match state.next((self.clock)()) {
                Decision::Nothing => return Ok(None),
                Decision::Wait { until } => return Ok(Some(until)),
                Decision::Finish(outcome) => {
                    self.write(claim, &mut state, Entry::Finished { outcome }).await?;
                    tracing::info!(operation.id = %claim.operation, kind = claim.kind, ?outcome, "operation finished");
                }
                Decision::Run { step } => {
                    self.write(claim, &mut state, Entry::StepStarted { step }).await?;
                    let entry = match self.guarded(claim, run(workflow, step, &context)).await? {
                        Ok(()) => Entry::StepDone { step },
                        Err(StepError { message, code, retry }) => {
                            Entry::StepFailed { step, error: message, code: code.map(str::to_owned), retry }
                        }
                    };
                    self.write(claim, &mut state, entry).await?;
                }
                Decision::Undo { step } => {
                    self.write(claim, &mut state, Entry::UndoStarted { step }).await?;
                    let entry = match self.guarded(claim, undo(workflow, step, &context)).await? {
                        Ok(()) => Entry::UndoDone { step },
                        Err(StepError { message, code, .. }) => {
                            Entry::UndoFailed { step, error: message, code: code.map(str::to_owned) }
                        }
                    };
                    self.write(claim, &mut state, entry).await?;
                }
            }
        }
    }

    async fn write(&self, claim: &Claim, state: &mut State, entry: Entry) -> Result<(), EngineError> {
        if let Entry::StepFailed { error, code, .. } | Entry::UndoFailed { error, code, .. } = &entry {
            tracing::warn!(operation.id = %claim.operation, kind = claim.kind, code, %error, "a step failed");
        }
        let record = Record { at: (self.clock)(), entry };
        state.apply(&record);
        self.journal.append(claim, &record, Summary { state }, LEASE).await?;
        Ok(())
    }

    /// Runs a step while the lease is renewed; drops it when the lease is lost.
    async fn guarded(
        &self,
        claim: &Claim,
        work: impl Future<Output = Result<(), StepError>>,
    ) -> Result<Result<(), StepError>, EngineError> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(RENEWAL, work.as_mut()).await {
                Ok(result) => return Ok(result),
                Err(_) => self.journal.renew(claim, (self.clock)(), LEASE).await?,
            }
        }
    }
}

fn step_of<C>(workflow: &Workflow<C>, step: usize) -> Result<&dyn Step<C>, StepError> {
    let missing = || StepError::never(format!("the workflow has no step {step}"));
    workflow.steps.get(step).map(AsRef::as_ref).ok_or_else(missing)
}

/// Looks, acts when needed, and looks again: only what is seen counts as done.
async fn run<C: Send + Sync>(workflow: &Workflow<C>, step: usize, context: &C) -> Result<(), StepError> {
    let step = step_of(workflow, step)?;
    if step.observe(context).await? == Observed::Done {
        return Ok(());
    }
    step.apply(context).await?;
    match step.observe(context).await? {
        Observed::Done => Ok(()),
        Observed::NotDone => {
            Err(StepError::later(format!("{}: the effect is not there after it was made", step.name())))
        }
    }
}

async fn undo<C: Send + Sync>(workflow: &Workflow<C>, step: usize, context: &C) -> Result<(), StepError> {
    step_of(workflow, step)?.undo(context).await
}
