//! What takes time: one file per operation, its steps in order, and the context they work with.

mod context;
mod deprovision;
mod image;
mod provision;
mod target;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use bmi_api::OperationKind;
use bmi_db::journal::DbJournal;
use bmi_types::Timestamp;
use bmi_workflow::{Engine, OnFailure, Ran, Workflow};
use tokio::task::JoinHandle;

pub use context::Context;

use crate::app::App;

/// Operations that are worked on at once: enough for 24 nodes, whose steps mostly wait.
const WORKERS: usize = 24;
/// Pause after the journal failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long one attempt waits for an agent: it answers in less than a second when it is well, and a worker waits
/// meanwhile.
pub const AGENT_WAIT: Duration = Duration::from_secs(10);

/// Every workflow.
#[must_use]
pub fn all() -> Vec<Workflow<Context>> {
    OperationKind::ALL.iter().map(|kind| workflow(*kind)).collect()
}

/// The workflow of a kind of operation.
#[must_use]
pub fn workflow(kind: OperationKind) -> Workflow<Context> {
    match kind {
        OperationKind::Provision => provision::workflow(),
        OperationKind::Deprovision => deprovision::workflow(),
        OperationKind::ImageImport => image::import(),
        OperationKind::ImageSeal => image::seal(),
        OperationKind::ImageDelete => image::delete(),
    }
}

/// The names of a workflow's steps, and what happens when one fails.
#[must_use]
pub fn outline(kind: OperationKind) -> (Vec<&'static str>, OnFailure) {
    let workflow = workflow(kind);
    (workflow.steps.iter().map(|step| step.name()).collect(), workflow.on_failure)
}

/// Starts the workers. They end when they are aborted; what they were doing is taken over at the next start.
#[must_use]
pub fn start(app: &Arc<App>, owner: &str) -> Vec<JoinHandle<()>> {
    let context_app = Arc::clone(app);
    let engine = Arc::new(Engine::new(
        Arc::new(DbJournal::new(app.db.clone())),
        all(),
        owner,
        move |claim| Context::new(Arc::clone(&context_app), claim.operation),
        Timestamp::now,
    ));
    (0..WORKERS)
        .map(|_| {
            let (engine, app) = (Arc::clone(&engine), Arc::clone(app));
            tokio::spawn(async move {
                let mut bell = app.wake.operations.listen();
                loop {
                    match engine.run_once().await {
                        Ok(Ran::Worked) => {}
                        Ok(Ran::Idle) => bell.wait().await,
                        Err(error) => {
                            tracing::error!(%error, cause = ?std::error::Error::source(&error), "the workflow engine stumbled");
                            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                        }
                    }
                }
            })
        })
        .collect()
}
