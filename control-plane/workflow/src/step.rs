//! Steps and workflows: what is to be done.

use async_trait::async_trait;

use crate::Retry;

/// What a step sees when it looks at the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// The effect is there, whole.
    Done,
    /// It is not there, or only half.
    NotDone,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What was being done, to what, and why it failed. For people; no secret.
    pub message: String,
    /// The same as a word that never changes its meaning, where it has one. Which words there are is the domain's.
    pub code: Option<&'static str>,
    /// Whether to try again.
    pub retry: Retry,
}

impl StepError {
    /// A failure that may pass.
    pub fn later(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, retry: Retry::Later }
    }

    /// A failure that will not.
    pub fn never(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: None, retry: Retry::Never }
    }

    /// The same failure with a code.
    #[must_use]
    pub const fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// One step. All three verbs are idempotent and may be cut off at any point.
#[async_trait]
pub trait Step<C>: Send + Sync {
    /// Its name, in the words of the domain: `prepare-image`.
    fn name(&self) -> &'static str;

    /// Looks whether the effect is there.
    async fn observe(&self, context: &C) -> Result<Observed, StepError>;

    /// Makes the effect. Called only when it was not there, whole, a moment ago.
    async fn apply(&self, context: &C) -> Result<(), StepError>;

    /// Takes the effect back, whole or half. Succeeds when nothing is left, also when there was nothing.
    async fn undo(&self, context: &C) -> Result<(), StepError>;
}

/// What happens when a step fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The steps are undone in reverse order, and the operation fails.
    Unwind,
    /// The operation is stuck, visibly, and the step is tried again: for workflows that take things away.
    Persist,
}

/// A kind of operation.
pub struct Workflow<C> {
    /// Its name: `provision`.
    pub kind: &'static str,
    /// What is to be done, in order.
    pub steps: Vec<Box<dyn Step<C>>>,
    /// What happens when a step fails for good.
    pub on_failure: OnFailure,
}
