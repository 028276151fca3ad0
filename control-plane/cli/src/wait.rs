//! Following an operation: each step as it happens, and the end.

use std::time::{Duration, Instant};

use bmi_api::{Operation, OperationState, StepState};

use crate::Session;
use crate::failure::Failure;
use crate::nouns::operation::COLUMNS;

/// How often an operation is looked at.
const EVERY: Duration = Duration::from_millis(150);

/// Shows an operation; with `--wait`, follows it to its end and fails when it fails.
pub(crate) async fn follow(session: &Session, operation: Operation) -> Result<(), Failure> {
    let Some(longest) = session.wait else { return session.output.one(&operation, COLUMNS) };
    let begun = Instant::now();
    let mut told = Told::default();
    let mut now = operation;
    loop {
        told.tell(&now);
        if now.state.is_final() {
            break;
        }
        if begun.elapsed() > longest {
            let text = format!("operation {} is still {} after {} s", now.id, now.state, longest.as_secs());
            return Err(Failure::Operation(text));
        }
        tokio::time::sleep(EVERY).await;
        now = session.client.get(&format!("/v1/operations/{}", now.id)).await?;
    }
    if now.state == OperationState::Failed {
        let reason = now.error.as_deref().unwrap_or("no reason is known");
        return Err(Failure::Operation(format!("{} of `{}` failed: {reason}", now.kind, now.subject.name)));
    }
    session.output.one(&now, COLUMNS)
}

/// What has been told already.
#[derive(Default)]
struct Told {
    ended: Vec<String>,
    error: Option<String>,
    percent: Option<u64>,
}

impl Told {
    #[expect(clippy::print_stderr, reason = "progress goes to standard error, results to standard output")]
    fn tell(&mut self, operation: &Operation) {
        for step in &operation.steps {
            let ended = matches!(step.state, StepState::Done | StepState::Failed | StepState::Undone);
            if !ended || self.ended.contains(&step.name) {
                continue;
            }
            let took = step.started_at.zip(step.ended_at).map(|(from, to)| to.since(from).as_millis());
            let took = took.map(|ms| format!(" ({ms} ms)")).unwrap_or_default();
            eprintln!("  {} {}{took}", step.name, step.state);
            self.ended.push(step.name.clone());
        }
        if operation.error.is_some() && operation.error != self.error {
            self.error.clone_from(&operation.error);
            eprintln!("  {}: {}", operation.state, operation.error.as_deref().unwrap_or_default());
        }
        let percent = operation
            .progress
            .map(|progress| progress.done.bytes() * 100 / progress.total.bytes().max(1) / 10 * 10);
        if percent != self.percent && !operation.state.is_final() {
            self.percent = percent;
            eprintln!("  {} %", percent.unwrap_or(0));
        }
    }
}
