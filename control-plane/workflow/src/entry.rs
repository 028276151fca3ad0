//! What a journal holds.

use bmi_types::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether a failed step may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same call may succeed later.
    Later,
    /// It will fail again whatever happens.
    Never,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// A step failed for good, and everything before it was undone.
    Failed,
}

/// One line of a journal. `step` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The step may have effects from here on.
    StepStarted {
        /// Which.
        step: usize,
    },
    /// The step's effect was seen in the world.
    StepDone {
        /// Which.
        step: usize,
    },
    /// The step failed, and may still have had effects.
    StepFailed {
        /// Which.
        step: usize,
        /// What was being done and why it failed, for people.
        error: String,
        /// The same as a word that never changes its meaning, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Whether to try again.
        retry: Retry,
    },
    /// The step's effects are being taken back.
    UndoStarted {
        /// Which.
        step: usize,
    },
    /// Nothing of the step is left.
    UndoDone {
        /// Which.
        step: usize,
    },
    /// Taking back failed.
    UndoFailed {
        /// Which.
        step: usize,
        /// What was being done and why it failed, for people.
        error: String,
        /// The same as a word that never changes its meaning, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Nothing more will happen.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
}

/// An entry with its place in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was written.
    pub at: Timestamp,
    /// What was written.
    pub entry: Entry,
}
