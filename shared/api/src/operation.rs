//! Operations: what a request that takes time returns.

use bmi_types::{ByteSize, Name, OperationId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Code, words};

words! {
    /// What an operation does.
    OperationKind {
        /// Clones an image, prepares the network and exposes a target.
        Provision = "provision",
        /// Takes all that away.
        Deprovision = "deprovision",
        /// Reads an image from the import directory and seals it.
        ImageImport = "image-import",
        /// Makes an uploaded image immutable.
        ImageSeal = "image-seal",
        /// Removes an image.
        ImageDelete = "image-delete",
    }
}

words! {
    /// Where an operation is.
    OperationState {
        /// Nobody works on it yet.
        Pending = "pending",
        /// Its steps are being done.
        Running = "running",
        /// A step failed for good; what was done is being undone.
        Unwinding = "unwinding",
        /// What remains fails again and again; it is tried once a minute. `error` says what blocks it.
        Stuck = "stuck",
        /// All steps are done.
        Succeeded = "succeeded",
        /// It failed, and everything was undone.
        Failed = "failed",
    }
}

impl OperationState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

words! {
    /// Where a step is.
    StepState {
        /// Not begun.
        Waiting = "waiting",
        /// Begun, and tried again when it fails.
        Running = "running",
        /// Done.
        Done = "done",
        /// Failed for good.
        Failed = "failed",
        /// Undone, or never begun and not needed any more.
        Undone = "undone",
    }
}

/// What an operation works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// `instance` or `image`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name when the operation began.
    pub name: Name,
}

/// One step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: StepState,
    /// How often it was begun.
    pub attempts: u32,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The code of that failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// When it was first begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
    /// When it was done or undone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Timestamp>,
}

/// How far a step is that copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all.
    pub total: ByteSize,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// Where it is.
    pub state: OperationState,
    /// The project it belongs to.
    pub project: ProjectId,
    /// What it works on.
    pub subject: Subject,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// Why it failed, or what blocks it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The same as a word that never changes its meaning, of those that problems have; there whenever `error` is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// While a step copies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<Progress>,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
