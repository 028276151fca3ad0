//! What changes while somebody watches: an operation to its end, an instance with its timeline.
//!
//! Everything comes from the database, so nothing that was written is missed, whoever wrote it. The first look tells
//! everything so far; later ones tell what is new.
//!
//! Each look is made by the caller as it is then: with a token, groups and rights that still count.
//!
//! Deliberately absent: a queue of events per watcher. One that reads slowly sees fewer states in between, never an
//! older one after a newer one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bmi_api::{Instance, Operation, Stage};
use bmi_auth::{Action, Caller};
use futures::future::LocalBoxFuture;
use tokio::sync::watch;

use super::access::Access;
use super::instance::{instance_show, instance_timeline};
use super::operation::operation_show;
use super::{App, timeline};
use crate::error::AppError;

/// How often a watcher looks again by itself: another replica may have made the change.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The shortest time between two looks: an import writes its progress often.
const REST: Duration = Duration::from_millis(100);

/// One thing that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The operation as it is now.
    Operation(Box<Operation>),
    /// The instance as it is now.
    Instance(Box<Instance>),
    /// A new stage of its timeline.
    Stage(Stage),
    /// There is no such instance any more.
    Gone,
}

/// What is watched, and what was told of it.
enum Subject {
    Operation { id: String, told: Option<Operation> },
    Instance { project: String, id: String, told: Option<Instance>, stages: Vec<Stage> },
}

/// Finds out anew who watches; nothing when the token or session has ended since.
pub type Identify = Box<dyn Fn() -> LocalBoxFuture<'static, Option<Caller>>>;

/// Watches one thing for one caller.
pub struct Watch {
    app: Arc<App>,
    caller: Caller,
    identify: Identify,
    subject: Subject,
    written: watch::Receiver<()>,
    ready: VecDeque<Change>,
    over: bool,
}

impl Watch {
    /// Watches an operation until it is final.
    ///
    /// # Errors
    /// When the caller may not see it, or it does not exist.
    pub async fn operation(
        app: Arc<App>,
        caller: Caller,
        identify: Identify,
        operation: String,
    ) -> Result<Self, AppError> {
        Self::begin(app, caller, identify, Subject::Operation { id: operation, told: None }).await
    }

    /// Watches an instance until it is gone.
    ///
    /// # Errors
    /// When the caller may not see it, or it does not exist.
    pub async fn instance(
        app: Arc<App>,
        caller: Caller,
        identify: Identify,
        project: String,
        instance: String,
    ) -> Result<Self, AppError> {
        let found = instance_show(&app, &caller, project, instance).await?;
        // By id from here on: another instance of the same name is another one.
        let (project, id) = (found.project.to_string(), found.id.to_string());
        let subject = Subject::Instance { project, id, told: None, stages: Vec::new() };
        Self::begin(app, caller, identify, subject).await
    }

    async fn begin(
        app: Arc<App>,
        caller: Caller,
        identify: Identify,
        subject: Subject,
    ) -> Result<Self, AppError> {
        let written = app.db.written();
        let mut watch = Self { app, caller, identify, subject, written, ready: VecDeque::new(), over: false };
        watch.look().await?;
        Ok(watch)
    }

    /// The next change; nothing when there will be none any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next(&mut self) -> Result<Option<Change>, AppError> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Some(change));
            }
            if self.over {
                return Ok(None);
            }
            tokio::time::timeout(LOOK_AGAIN, self.written.changed()).await.ok();
            tokio::time::sleep(REST).await;
            self.written.borrow_and_update();
            let Some(caller) = (self.identify)().await else { return Ok(None) };
            self.caller = caller;
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<(), AppError> {
        match &mut self.subject {
            Subject::Operation { id, told } => {
                let now = operation_show(&self.app, &self.caller, id.clone()).await?;
                if told.as_ref() != Some(&now) {
                    self.over = now.state.is_final();
                    self.ready.push_back(Change::Operation(Box::new(now.clone())));
                    *told = Some(now);
                }
            }
            Subject::Instance { project, id, told, stages } => {
                let shown = instance_show(&self.app, &self.caller, project.clone(), id.clone()).await;
                let told_of = instance_timeline(&self.app, &self.caller, project.clone(), id.clone()).await;
                let (now, timeline) = match (shown, told_of) {
                    (Ok(now), Ok(timeline)) => (now, timeline),
                    (Err(error), _) | (_, Err(error)) if error.is_not_found() => {
                        // What happened since the last look, down to the end: the operations outlive the instance.
                        // Unless it is the caller who lost the right to see it.
                        let (place, gone) = (project.clone(), told.as_ref().map(|told| told.id));
                        let read = move |access: &mut Access<'_, '_>| {
                            access.enter(&place, Action::InstanceRead)?;
                            gone.map(|gone| timeline(access, gone)).transpose()
                        };
                        if let Ok(Some(last)) = self.app.reading(&self.caller, read).await {
                            self.ready.extend(new_stages(stages, &last.stages));
                        }
                        self.over = true;
                        self.ready.push_back(Change::Gone);
                        return Ok(());
                    }
                    (Err(error), _) | (_, Err(error)) => return Err(error),
                };
                if told.as_ref() != Some(&now) {
                    self.ready.push_back(Change::Instance(Box::new(now.clone())));
                    *told = Some(now);
                }
                self.ready.extend(new_stages(stages, &timeline.stages));
                *stages = timeline.stages;
            }
        }
        Ok(())
    }
}

fn new_stages(told: &[Stage], now: &[Stage]) -> Vec<Change> {
    let new = now.iter().filter(|stage| !told.iter().any(|known| same(known, stage)));
    new.cloned().map(Change::Stage).collect()
}

/// Whether two stages are one: the offset of all changes when an earlier one is reported late.
fn same(one: &Stage, other: &Stage) -> bool {
    one.at == other.at
        && one.stage == other.stage
        && one.operation == other.operation
        && one.detail == other.detail
}
