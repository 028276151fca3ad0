//! What steps work with: the application, and the operation's subject as it is now in the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bmi_api::{Code, Image};
use bmi_db::image::ImportFrom;
use bmi_db::instance::Record;
use bmi_drivers::image::ConverterError;
use bmi_drivers::store::StoreError;
use bmi_types::{ImageId, InstanceId, OperationId};
use bmi_workflow::StepError;

use crate::app::App;
use crate::code;
use crate::error::AppError;

/// How often progress is written.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// The context of one operation's steps.
pub struct Context {
    /// The application.
    pub app: Arc<App>,
    operation: OperationId,
}

impl Context {
    /// The context of an operation.
    #[must_use]
    pub const fn new(app: Arc<App>, operation: OperationId) -> Self {
        Self { app, operation }
    }

    /// The instance the operation works on; nothing when it is gone.
    pub(super) async fn instance(&self) -> Result<Option<Record>, StepError> {
        let operation = self.operation;
        self.app
            .db
            .system_read(move |tx| {
                let Some(stored) = bmi_db::operation::find(tx, operation)? else { return Ok(None) };
                Ok::<_, AppError>(bmi_db::instance::by_id(tx, InstanceId::from(stored.subject_id))?)
            })
            .await
            .map_err(app_error)
    }

    /// The instance, where it must be there.
    pub(super) async fn instance_there(&self) -> Result<Record, StepError> {
        self.instance().await?.ok_or_else(|| gone("instance"))
    }

    /// The image the operation works on and what it imports; nothing when it is gone.
    pub(super) async fn image(&self) -> Result<Option<(Image, Option<ImportFrom>)>, StepError> {
        let operation = self.operation;
        self.app
            .db
            .system_read(move |tx| {
                let Some(stored) = bmi_db::operation::find(tx, operation)? else { return Ok(None) };
                let id = ImageId::from(stored.subject_id);
                let project = tx.project(stored.project);
                Ok::<_, AppError>(bmi_db::image::of_operation(tx, project, id)?)
            })
            .await
            .map_err(app_error)
    }

    /// Runs a long copy and writes its progress to the operation.
    pub(super) async fn with_progress<T, F>(
        &self,
        work: impl FnOnce(Arc<dyn Fn(u64, u64) + Send + Sync>) -> F,
    ) -> Result<T, StepError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let counters = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let heard = Arc::clone(&counters);
        let mut work = std::pin::pin!(work(Arc::new(move |done, total| {
            heard.0.store(done, Ordering::Relaxed);
            heard.1.store(total, Ordering::Relaxed);
        })));
        let mut written = 0;
        loop {
            let ended = tokio::time::timeout(PROGRESS_EVERY, work.as_mut()).await;
            let (done, total) = (counters.0.load(Ordering::Relaxed), counters.1.load(Ordering::Relaxed));
            if done != written {
                written = done;
                let operation = self.operation;
                self.app
                    .db
                    .system_write(move |tx| {
                        Ok::<_, AppError>(bmi_db::operation::progress(tx, operation, done, total)?)
                    })
                    .await
                    .map_err(app_error)?;
            }
            if let Ok(result) = ended {
                return result.map_err(|error| store_error(&error));
            }
        }
    }
}

/// What the operation works on is gone from the database.
pub(super) fn gone(what: &str) -> StepError {
    StepError::never(format!("the {what} is gone from the database")).coded(Code::NotFound.as_str())
}

/// A failure of the application inside a step: it may pass.
pub(super) fn app_error(error: AppError) -> StepError {
    let problem = error.into_problem();
    StepError::later(problem.detail).coded(problem.code.as_str())
}

/// A failure of a power driver or an isolator: what it asks did not do it, and may yet.
pub(super) fn driver_error(error: impl std::error::Error) -> StepError {
    StepError::later(bmi_types::chain(&error)).coded(Code::Unavailable.as_str())
}

/// A failure of the store inside a step.
pub(super) fn store_error(error: &StoreError) -> StepError {
    let message = bmi_types::chain(error);
    let step = match error {
        StoreError::Conversion(
            ConverterError::Start(_)
            | ConverterError::Sandbox(_)
            | ConverterError::Ended(_)
            | ConverterError::GivenUp,
        ) => StepError::later(message),
        StoreError::Refused(_) | StoreError::Conversion(_) | StoreError::Source(_) => {
            StepError::never(message)
        }
        StoreError::Absent(_)
        | StoreError::NoTag { .. }
        | StoreError::WrongState { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Foreign(_) => StepError::never(message),
        StoreError::Full { .. }
        | StoreError::Io { .. }
        | StoreError::Denied { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Records(_)
        | StoreError::Unusable(_) => StepError::later(message),
    };
    step.coded(code::of_store(error).as_str())
}
