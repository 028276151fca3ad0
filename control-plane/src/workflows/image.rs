//! What takes time with images: import (copy → seal), seal, delete (remove content → forget).

use async_trait::async_trait;
use bmi_api::{Image, ImageState};
use bmi_drivers::store::{ImageContent, Place};
use bmi_workflow::{Observed, OnFailure, Step, StepError, Workflow};

use super::context::{Context, app_error, store_error};
use crate::app::image::place;
use crate::error::AppError;

pub(super) fn import() -> Workflow<Context> {
    let steps: Vec<Box<dyn Step<Context>>> = vec![Box::new(ClaimName), Box::new(Copy), Box::new(Seal)];
    Workflow { kind: "image-import", steps, on_failure: OnFailure::Unwind }
}

pub(super) fn seal() -> Workflow<Context> {
    Workflow { kind: "image-seal", steps: vec![Box::new(Seal)], on_failure: OnFailure::Persist }
}

pub(super) fn delete() -> Workflow<Context> {
    let steps: Vec<Box<dyn Step<Context>>> = vec![Box::new(RemoveContent), Box::new(Forget)];
    Workflow { kind: "image-delete", steps, on_failure: OnFailure::Persist }
}

fn place_of(image: &Image) -> Place {
    place(image.id, image.project)
}

async fn image_there(context: &Context) -> Result<(Image, Option<String>), StepError> {
    context.image().await?.ok_or_else(|| StepError::never("the image is gone from the database"))
}

async fn forget(context: &Context) -> Result<(), StepError> {
    let Some((image, _)) = context.image().await? else { return Ok(()) };
    let written = context
        .app
        .db
        .write(move |connection| Ok::<_, AppError>(bmi_db::image::delete(connection, image.id)?))
        .await;
    written.map_err(app_error)
}

async fn remove_content(context: &Context) -> Result<(), StepError> {
    let Some((image, _)) = context.image().await? else { return Ok(()) };
    context.app.store.image_remove(place_of(&image)).await.map_err(|error| store_error(&error))
}

async fn content(context: &Context, image: &Image) -> Result<ImageContent, StepError> {
    context.app.store.image_observe(place_of(image)).await.map_err(|error| store_error(&error))
}

/// The request took the name in its own transaction; this step is there to undo that.
struct ClaimName;

#[async_trait]
impl Step<Context> for ClaimName {
    fn name(&self) -> &'static str {
        "claim-name"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        image_there(context).await.map(|_| Observed::Done)
    }

    async fn apply(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        forget(context).await
    }
}

struct Copy;

#[async_trait]
impl Step<Context> for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let (image, _) = image_there(context).await?;
        Ok(match content(context, &image).await? {
            ImageContent::Absent => Observed::NotDone,
            ImageContent::Open { .. } | ImageContent::Sealed { .. } => Observed::Done,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let (image, file) = image_there(context).await?;
        let directory = context.app.import_dir.as_ref();
        let (directory, file) =
            directory.zip(file).ok_or_else(|| StepError::never("importing is switched off"))?;
        let (source, _) = directory.open(&file).map_err(|error| StepError::never(error.to_string()))?;
        let (store, place) = (&context.app.store, place_of(&image));
        context
            .with_progress(|progress| async move { store.image_import(place, source, &*progress).await })
            .await
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        remove_content(context).await
    }
}

struct Seal;

#[async_trait]
impl Step<Context> for Seal {
    fn name(&self) -> &'static str {
        "seal"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let (image, _) = image_there(context).await?;
        Ok(if image.state == ImageState::Sealed { Observed::Done } else { Observed::NotDone })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let (image, _) = image_there(context).await?;
        let (store, place) = (&context.app.store, place_of(&image));
        let sealed = context
            .with_progress(|progress| async move { store.image_seal(place, &*progress).await })
            .await?;
        let written = context
            .app
            .db
            .write(move |connection| {
                Ok::<_, AppError>(bmi_db::image::sealed(connection, image.id, sealed.size, &sealed.sha256)?)
            })
            .await;
        written.map_err(app_error)
    }

    /// Sealing is not taken back: what was imported is removed whole by the step before.
    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct RemoveContent;

#[async_trait]
impl Step<Context> for RemoveContent {
    fn name(&self) -> &'static str {
        "remove-content"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let Some((image, _)) = context.image().await? else { return Ok(Observed::Done) };
        Ok(match content(context, &image).await? {
            ImageContent::Absent => Observed::Done,
            ImageContent::Open { .. } | ImageContent::Sealed { .. } => Observed::NotDone,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        remove_content(context).await
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct Forget;

#[async_trait]
impl Step<Context> for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        Ok(if context.image().await?.is_some() { Observed::NotDone } else { Observed::Done })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        forget(context).await
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}
