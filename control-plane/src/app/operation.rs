//! Operations: how they are shown.

use bmi_api::{Code, Operation, OperationState, Progress, Step, StepState, Subject};
use bmi_auth::{Action, Caller};
use bmi_db::operation::Stored;
use bmi_db::{After, Tx};
use bmi_types::{ByteSize, OperationId};
use bmi_workflow::{Entry, State, StepView};

use super::App;
use crate::error::AppError;
use crate::workflows;

/// Shows an operation.
pub async fn operation_show(app: &App, caller: &Caller, operation: String) -> Result<Operation, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::OperationRead)?;
        let id: OperationId = operation.parse().map_err(|_| AppError::not_found())?;
        let stored = bmi_db::operation::find(access, id)?.ok_or_else(AppError::not_found)?;
        Ok(present(stored))
    })
    .await
}

/// Lists operations, of one project when given.
pub async fn operation_list(
    app: &App,
    caller: &Caller,
    of: Option<String>,
    after: After,
) -> Result<Vec<Operation>, AppError> {
    app.reading(caller, move |access| {
        let of = match of {
            Some(text) => Some(access.enter(&text, Action::OperationRead)?),
            None => {
                access.where_allowed(Action::OperationRead)?;
                None
            }
        };
        Ok(bmi_db::operation::list(access, of, after)?.into_iter().map(present).collect())
    })
    .await
}

/// Refuses when an operation works on something.
pub(crate) fn not_busy(tx: &mut Tx<'_>, subject: uuid::Uuid) -> Result<(), AppError> {
    match bmi_db::operation::unfinished_of(tx, subject)? {
        Some(operation) => Err(AppError::refused(
            bmi_api::Code::Busy,
            format!("operation {operation} is working on it; wait until it has ended"),
        )),
        None => Ok(()),
    }
}

/// What the API shows of a stored operation.
pub(crate) fn present(stored: Stored) -> Operation {
    let (names, on_failure) = workflows::outline(stored.kind);
    let state = State::fold(names.len(), on_failure, &stored.records);
    let steps = names
        .iter()
        .zip(state.steps())
        .enumerate()
        .map(|(index, (name, view))| {
            let (error, code) = last_failure(&stored, index).unzip();
            Step {
                name: (*name).to_owned(),
                state: step_state(view, stored.state),
                attempts: view.attempts,
                error,
                code,
                started_at: view.started_at,
                ended_at: view.ended_at,
            }
        })
        .collect();
    Operation {
        id: stored.id,
        kind: stored.kind,
        state: stored.state,
        project: stored.project,
        subject: Subject {
            kind: stored.subject_kind,
            id: stored.subject_id.to_string(),
            name: stored.subject_name,
        },
        steps,
        code: stored.error.as_ref().map(|_| stored.code.unwrap_or(Code::Internal)),
        error: stored.error,
        progress: stored
            .progress
            .map(|(done, total)| Progress { done: ByteSize::new(done), total: ByteSize::new(total) }),
        requested_by: stored.requested_by,
        created_at: stored.created_at,
        updated_at: stored.updated_at,
    }
}

fn step_state(view: &StepView, operation: OperationState) -> StepState {
    if view.failed {
        StepState::Failed
    } else if view.undone {
        StepState::Undone
    } else if view.done {
        StepState::Done
    } else if view.attempts > 0 {
        StepState::Running
    } else if operation == OperationState::Failed {
        StepState::Undone
    } else {
        StepState::Waiting
    }
}

fn last_failure(stored: &Stored, index: usize) -> Option<(String, Code)> {
    stored.records.iter().rev().find_map(|record| match &record.entry {
        Entry::StepFailed { step, error, code, .. } | Entry::UndoFailed { step, error, code }
            if *step == index =>
        {
            Some((error.clone(), code_of(code.as_deref())))
        }
        _ => None,
    })
}

/// A code as it was written. One that has none, or that a newer release wrote, is of no kind that is known here.
pub(crate) fn code_of(word: Option<&str>) -> Code {
    word.and_then(Code::from_word).unwrap_or(Code::Internal)
}
