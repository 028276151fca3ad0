//! Where an operation stands: a pure fold over its journal, and a pure decision about what comes next.

use std::time::Duration;

use bmi_types::Timestamp;

use crate::{Entry, OnFailure, Outcome, Record, Retry};

/// How often a step is tried before it counts as failed for good. With the pauses below: about 40 s.
const ATTEMPTS_MAX: u32 = 6;
/// How often an undo is tried before the operation counts as stuck.
const UNDO_ATTEMPTS_MAX: u32 = 5;
/// Pause after the first failure; doubled with each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between attempts of something that is not stuck.
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// Pause between attempts of something that is stuck.
const PAUSE_STUCK: Duration = Duration::from_secs(60);

/// The phase of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Steps are being done. Enters: at the start. Leaves: to `Finished`, or to `Unwinding` when one fails for good.
    Forward,
    /// Steps are being undone. Enters: from `Forward`. Leaves: to `Finished`.
    Unwinding,
    /// Nothing more will happen. Enters: from either. Never leaves.
    Finished(Outcome),
}

/// What is known of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepView {
    /// How often it was begun.
    pub attempts: u32,
    /// Its effect was seen.
    pub done: bool,
    /// It may have had effects.
    pub may_have_run: bool,
    /// Nothing of it is left.
    pub undone: bool,
    /// It failed for good.
    pub failed: bool,
    /// When it was first begun.
    pub started_at: Option<Timestamp>,
    /// When it was done or undone.
    pub ended_at: Option<Timestamp>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Do a step.
    Run {
        /// Which.
        step: usize,
    },
    /// Undo a step.
    Undo {
        /// Which.
        step: usize,
    },
    /// Do nothing before this time.
    Wait {
        /// Until when.
        until: Timestamp,
    },
    /// Write that it is finished.
    Finish(Outcome),
    /// It is finished.
    Nothing,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    on_failure: OnFailure,
    phase: Phase,
    steps: Vec<StepView>,
    /// Failures in a row of what is being tried now.
    failures: u32,
    not_before: Timestamp,
    error: Option<String>,
    code: Option<String>,
    stuck: bool,
}

impl State {
    /// Folds a journal. Entries for steps that do not exist are passed over.
    pub fn fold<'a>(
        steps: usize,
        on_failure: OnFailure,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Self {
        let mut state = Self {
            on_failure,
            phase: Phase::Forward,
            steps: vec![StepView::default(); steps],
            failures: 0,
            not_before: Timestamp::from_micros(0),
            error: None,
            code: None,
            stuck: false,
        };
        for record in records {
            state.apply(record);
        }
        state
    }

    /// Takes one more record.
    pub fn apply(&mut self, record: &Record) {
        let at = record.at;
        match &record.entry {
            Entry::StepStarted { step } => self.with(*step, |view| {
                view.attempts += 1;
                view.may_have_run = true;
                view.started_at = view.started_at.or(Some(at));
            }),
            Entry::StepDone { step } => {
                self.with(*step, |view| {
                    view.done = true;
                    view.ended_at = Some(at);
                });
                self.calm();
            }
            Entry::StepFailed { step, error, code, retry } => {
                self.failed(at, error, code.as_deref());
                let for_good = *retry == Retry::Never || self.failures >= ATTEMPTS_MAX;
                match self.on_failure {
                    OnFailure::Unwind if for_good => {
                        self.with(*step, |view| {
                            view.failed = true;
                            view.ended_at = Some(at);
                        });
                        self.phase = Phase::Unwinding;
                        self.failures = 0;
                        self.not_before = at;
                    }
                    OnFailure::Persist if for_good => self.get_stuck(at),
                    _ => {}
                }
            }
            Entry::UndoStarted { .. } => {}
            Entry::UndoDone { step } => {
                self.with(*step, |view| {
                    view.may_have_run = false;
                    view.undone = true;
                    view.ended_at = Some(at);
                });
                self.failures = 0;
                self.stuck = false;
                self.not_before = at;
            }
            Entry::UndoFailed { error, code, .. } => {
                // The reason of the failure stays the headline; what blocks the way back is added to it.
                self.failures += 1;
                self.not_before = at.plus(pause(self.failures));
                if self.failures >= UNDO_ATTEMPTS_MAX {
                    self.error = Some(format!("undoing is blocked: {error}"));
                    self.code.clone_from(code);
                    self.get_stuck(at);
                }
            }
            Entry::Finished { outcome } => {
                self.phase = Phase::Finished(*outcome);
                self.stuck = false;
                if *outcome == Outcome::Succeeded {
                    self.error = None;
                    self.code = None;
                }
            }
        }
    }

    fn with(&mut self, step: usize, change: impl FnOnce(&mut StepView)) {
        if let Some(view) = self.steps.get_mut(step) {
            change(view);
        }
    }

    fn calm(&mut self) {
        self.failures = 0;
        self.stuck = false;
        self.error = None;
        self.code = None;
        self.not_before = Timestamp::from_micros(0);
    }

    fn failed(&mut self, at: Timestamp, error: &str, code: Option<&str>) {
        self.failures += 1;
        self.not_before = at.plus(pause(self.failures));
        self.error = Some(error.to_owned());
        self.code = code.map(str::to_owned);
    }

    fn get_stuck(&mut self, at: Timestamp) {
        self.stuck = true;
        self.not_before = at.plus(PAUSE_STUCK);
    }

    /// Decides what comes next at a time.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Decision {
        let decision = match self.phase {
            Phase::Finished(_) => return Decision::Nothing,
            Phase::Forward => match self.steps.iter().position(|view| !view.done) {
                Some(step) => Decision::Run { step },
                None => return Decision::Finish(Outcome::Succeeded),
            },
            Phase::Unwinding => match self.steps.iter().rposition(|view| view.may_have_run) {
                Some(step) => Decision::Undo { step },
                None => return Decision::Finish(Outcome::Failed),
            },
        };
        if now < self.not_before { Decision::Wait { until: self.not_before } } else { decision }
    }

    /// The phase.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether what remains fails again and again.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Each step, in order.
    #[must_use]
    pub fn steps(&self) -> &[StepView] {
        &self.steps
    }

    /// The last failure that matters.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The code of that failure, where it has one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

/// The pause after a number of failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn fold(on_failure: OnFailure, entries: Vec<Entry>) -> State {
        let records: Vec<Record> = entries.into_iter().map(|entry| Record { at: at(1), entry }).collect();
        State::fold(2, on_failure, &records)
    }

    fn failure(step: usize, retry: Retry) -> Entry {
        Entry::StepFailed { step, error: "no".into(), code: Some("refused".into()), retry }
    }

    #[test]
    fn steps_run_in_order_and_then_it_is_finished() {
        let mut entries = vec![];
        assert_eq!(fold(OnFailure::Unwind, entries.clone()).next(at(2)), Decision::Run { step: 0 });
        entries.extend([Entry::StepStarted { step: 0 }, Entry::StepDone { step: 0 }]);
        assert_eq!(fold(OnFailure::Unwind, entries.clone()).next(at(2)), Decision::Run { step: 1 });
        entries.extend([Entry::StepStarted { step: 1 }, Entry::StepDone { step: 1 }]);
        assert_eq!(fold(OnFailure::Unwind, entries).next(at(2)), Decision::Finish(Outcome::Succeeded));
    }

    #[test]
    fn a_crash_after_a_start_runs_the_step_again() {
        let state = fold(OnFailure::Unwind, vec![Entry::StepStarted { step: 0 }]);
        assert_eq!(state.next(at(2)), Decision::Run { step: 0 });
    }

    #[test]
    fn a_passing_failure_waits_and_tries_again() {
        let state = fold(OnFailure::Unwind, vec![Entry::StepStarted { step: 0 }, failure(0, Retry::Later)]);
        assert!(matches!(state.next(at(1)), Decision::Wait { .. }));
        assert_eq!(state.next(at(2)), Decision::Run { step: 0 });
    }

    #[test]
    fn a_failure_for_good_unwinds_every_step_that_may_have_run_in_reverse() {
        let mut entries = vec![
            Entry::StepStarted { step: 0 },
            Entry::StepDone { step: 0 },
            Entry::StepStarted { step: 1 },
            failure(1, Retry::Never),
        ];
        assert_eq!(fold(OnFailure::Unwind, entries.clone()).next(at(2)), Decision::Undo { step: 1 });
        entries.push(Entry::UndoDone { step: 1 });
        assert_eq!(fold(OnFailure::Unwind, entries.clone()).next(at(2)), Decision::Undo { step: 0 });
        entries.push(Entry::UndoDone { step: 0 });
        let state = fold(OnFailure::Unwind, entries);
        assert_eq!(state.next(at(2)), Decision::Finish(Outcome::Failed));
        assert_eq!((state.error(), state.code()), (Some("no"), Some("refused")));
    }

    #[test]
    fn too_many_passing_failures_are_one_for_good() {
        let entries = vec![failure(0, Retry::Later); ATTEMPTS_MAX as usize];
        assert_eq!(fold(OnFailure::Unwind, entries).phase(), Phase::Unwinding);
    }

    #[test]
    fn what_takes_away_never_unwinds_but_gets_stuck_and_goes_on() {
        let state = fold(OnFailure::Persist, vec![failure(0, Retry::Never)]);
        assert!(state.is_stuck());
        assert_eq!(state.next(at(2)), Decision::Wait { until: at(61) });
        assert_eq!(state.next(at(61)), Decision::Run { step: 0 });
    }

    #[test]
    fn a_blocked_undo_is_stuck_and_says_what_blocks_it() {
        let mut entries = vec![Entry::StepStarted { step: 0 }, failure(0, Retry::Never)];
        let blocked = Entry::UndoFailed { step: 0, error: "held".into(), code: Some("in-use".into()) };
        entries.extend(vec![blocked; UNDO_ATTEMPTS_MAX as usize]);
        let state = fold(OnFailure::Unwind, entries);
        assert!(state.is_stuck());
        assert_eq!((state.error(), state.code()), (Some("undoing is blocked: held"), Some("in-use")));
    }

    #[test]
    fn what_succeeds_in_the_end_has_no_failure() {
        let entries = vec![
            failure(0, Retry::Later),
            Entry::StepDone { step: 0 },
            failure(1, Retry::Later),
            Entry::StepDone { step: 1 },
            Entry::Finished { outcome: Outcome::Succeeded },
        ];
        let state = fold(OnFailure::Unwind, entries);
        assert_eq!((state.error(), state.code()), (None, None));
    }

    #[test]
    fn what_an_older_release_wrote_is_read() {
        let old = r#"{"entry": "step_failed", "step": 0, "error": "no", "retry": "never"}"#;
        let read: Entry = serde_json::from_str(old).unwrap();
        assert_eq!(read, Entry::StepFailed { step: 0, error: "no".into(), code: None, retry: Retry::Never });
    }
}
