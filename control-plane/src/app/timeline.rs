//! The timeline of an instance: its operations' steps and its boot's stages, in order of time.

use std::collections::BTreeMap;

use bmi_api::{Stage, Timeline};
use bmi_db::Tx;
use bmi_types::{InstanceId, OperationId, Timestamp};
use bmi_workflow::Entry;

use super::operation::code_of;
use crate::error::AppError;
use crate::workflows;

/// When, what, of which operation, and its details.
type Found = (Timestamp, String, Option<OperationId>, BTreeMap<String, String>);

/// Gathers the timeline of an instance. Of one that is gone, its operations are left.
///
/// # Errors
/// When the database fails.
pub fn timeline(tx: &mut Tx<'_>, instance: InstanceId) -> Result<Timeline, AppError> {
    let mut found: Vec<Found> = Vec::new();
    for operation in bmi_db::operation::of_subject(tx, instance.uuid())? {
        let (names, _) = workflows::outline(operation.kind);
        let requested = format!("{}.requested", operation.kind);
        found.push((operation.created_at, requested, Some(operation.id), BTreeMap::new()));
        for record in &operation.records {
            let (step, detail) = match &record.entry {
                Entry::StepDone { step } => (*step, BTreeMap::new()),
                Entry::StepFailed { step, error, code, .. } => {
                    let code = code_of(code.as_deref()).to_string();
                    (*step, BTreeMap::from([("error".to_owned(), error.clone()), ("code".to_owned(), code)]))
                }
                _ => continue,
            };
            let name = names.get(step).copied().unwrap_or("step");
            found.push((record.at, name.to_owned(), Some(operation.id), detail));
        }
    }
    for (at, stage, detail) in bmi_db::stage::list(tx, instance)? {
        found.push((at, stage, None, detail));
    }
    found.sort_by_key(|(at, ..)| *at);
    let first = found.first().map_or(Timestamp::from_micros(0), |(at, ..)| *at);
    let stages = found
        .into_iter()
        .map(|(at, stage, operation, detail)| Stage {
            at,
            offset_us: u64::try_from(at.since(first).as_micros()).unwrap_or(u64::MAX),
            stage,
            operation,
            detail,
        })
        .collect();
    Ok(Timeline { instance, stages })
}
