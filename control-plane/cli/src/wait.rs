//! Following an operation: each step as it happens, and the end.
//!
//! A server that is away meanwhile (restarted, upgraded) does not end the wait: the operation goes on when it is back.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bmi_api::{Code, Operation, OperationState, Step, StepState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Session;
use crate::failure::Failure;
use crate::nouns::operation::COLUMNS;

/// How often an operation is looked at.
const EVERY: Duration = Duration::from_millis(150);
/// How often a server that is away is tried.
const EVERY_WHILE_AWAY: Duration = Duration::from_secs(1);

/// Shows an operation; with `--wait`, follows it to its end and fails when it fails.
pub(crate) async fn follow(session: &Session, operation: Operation) -> Result<(), Failure> {
    let Some(longest) = session.wait else { return session.output.one(&operation, COLUMNS) };
    let begun = Instant::now();
    let mut told = Told::new();
    let mut now = operation;
    loop {
        told.tell(&now);
        if now.state.is_final() {
            break;
        }
        if begun.elapsed() > longest {
            told.live.finish_and_clear();
            let text = format!(
                "operation {} is still {} after {} s; it goes on: bmi operation show {} --wait",
                now.id,
                now.state,
                longest.as_secs(),
                now.id
            );
            return Err(Failure::Operation(text));
        }
        tokio::time::sleep(EVERY).await;
        match session.client.get(&format!("/v1/operations/{}", now.id)).await {
            Ok(next) => now = next,
            Err(failure) if is_away(&failure) && begun.elapsed() <= longest => {
                told.away(&failure);
                tokio::time::sleep(EVERY_WHILE_AWAY).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    told.live.finish_and_clear();
    if now.state == OperationState::Failed {
        let reason = now.error.as_deref().unwrap_or("no reason is known");
        let code = now.code.map(|code| format!(" ({code})")).unwrap_or_default();
        // A defect is not told of under a request's id here.
        let known = now.code.filter(|code| *code != Code::Internal);
        let hint = known.and_then(Failure::hint_of).map(|hint| format!("\n  {hint}")).unwrap_or_default();
        let text = format!(
            "{} of `{}` failed{code}, and what was done is undone: {reason}\n  the whole of it: bmi operation show {} -o yaml{hint}",
            now.kind, now.subject.name, now.id
        );
        return Err(Failure::Operation(text));
    }
    session.output.one(&now, COLUMNS)
}

/// Whether a failure says nothing about what was asked for, only that nobody could answer.
pub(crate) fn is_away(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => true,
        Failure::Refused(problem) => problem.code == Code::Unavailable,
        _ => false,
    }
}

/// A bar on a terminal, hidden elsewhere.
pub(crate) fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(length, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// What has been told already.
struct Told {
    /// The step that is being done, on a terminal.
    live: ProgressBar,
    ended: Vec<String>,
    error: Option<String>,
    percent: Option<u64>,
    away: bool,
}

impl Told {
    fn new() -> Self {
        let live = bar(None, "  {spinner} {msg} {elapsed}");
        live.enable_steady_tick(EVERY);
        Self { live, ended: Vec::new(), error: None, percent: None, away: false }
    }

    /// A line that stays, above the one that moves.
    #[expect(clippy::print_stderr, reason = "progress goes to standard error, results to standard output")]
    fn line(&self, text: &str) {
        if self.live.is_hidden() { eprintln!("  {text}") } else { self.live.println(format!("  {text}")) }
    }

    fn away(&mut self, failure: &Failure) {
        if !self.away {
            self.line(&format!("{failure}; waiting for it"));
            self.away = true;
        }
    }

    fn tell(&mut self, operation: &Operation) {
        self.away = false;
        for step in &operation.steps {
            let ended = matches!(step.state, StepState::Done | StepState::Failed | StepState::Undone);
            if ended && !self.ended.contains(&step.name) {
                self.line(&format!("{} {}{}", step.name, step.state, took(step)));
                self.ended.push(step.name.clone());
            }
        }
        if operation.error.is_some() && operation.error != self.error {
            self.error.clone_from(&operation.error);
            self.line(&format!("{}: {}", operation.state, operation.error.as_deref().unwrap_or_default()));
        }
        let current = operation.steps.iter().find(|step| step.state == StepState::Running);
        let percent =
            operation.progress.map(|progress| progress.done.bytes() * 100 / progress.total.bytes().max(1));
        let name = current.map_or(operation.state.as_str(), |step| step.name.as_str());
        self.live.set_message(match (operation.progress, percent) {
            (Some(progress), Some(percent)) => {
                format!("{name} {} of {} ({percent} %)", progress.done, progress.total)
            }
            _ => name.to_owned(),
        });
        // Where nothing moves, every tenth part is a line.
        let tenth = percent.map(|percent| percent / 10 * 10);
        if self.live.is_hidden() && tenth != self.percent && !operation.state.is_final() {
            self.percent = tenth;
            self.line(&format!("{} %", tenth.unwrap_or(0)));
        }
    }
}

fn took(step: &Step) -> String {
    let took = step.started_at.zip(step.ended_at).map(|(from, to)| to.since(from).as_millis());
    took.map(|ms| format!(" ({ms} ms)")).unwrap_or_default()
}
