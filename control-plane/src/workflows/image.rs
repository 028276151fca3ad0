//! What takes time with images: import (copy → convert → remove upload → seal), seal, delete (remove content → forget).
//!
//! An import whose file was uploaded has nothing to copy; one of a raw file has nothing to convert.

use async_trait::async_trait;
use bmi_api::{Code, Image, ImageState};
use bmi_db::image::ImportFrom;
use bmi_drivers::store::{ImageContent, Place, StoredSource};
use bmi_types::ImageFormat;
use bmi_workflow::{Observed, OnFailure, Step, StepError, Workflow};

use super::context::{Context, app_error, gone, store_error};
use crate::app::image::place;
use crate::code;
use crate::error::AppError;

pub(super) fn import() -> Workflow<Context> {
    let steps: Vec<Box<dyn Step<Context>>> =
        vec![Box::new(ClaimName), Box::new(Copy), Box::new(Convert), Box::new(RemoveUpload), Box::new(Seal)];
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

async fn image_there(context: &Context) -> Result<(Image, Option<ImportFrom>), StepError> {
    context.image().await?.ok_or_else(|| gone("image"))
}

async fn forget(context: &Context) -> Result<(), StepError> {
    let Some((image, _)) = context.image().await? else { return Ok(()) };
    let written = context
        .app
        .db
        .system_write(move |tx| {
            let project = tx.project(image.project);
            Ok::<_, AppError>(bmi_db::image::delete(tx, project, image.id)?)
        })
        .await;
    written.map_err(app_error)
}

async fn remove_content(context: &Context) -> Result<(), StepError> {
    let Some((image, _)) = context.image().await? else { return Ok(()) };
    context.app.store.image_remove(place_of(&image)).await.map_err(|error| store_error(&error))
}

async fn has_content(context: &Context, image: &Image) -> Result<bool, StepError> {
    let found =
        context.app.store.image_observe(place_of(image)).await.map_err(|error| store_error(&error))?;
    Ok(match found {
        ImageContent::Absent => false,
        ImageContent::Open { .. } | ImageContent::Sealed { .. } => true,
    })
}

async fn uploaded(context: &Context, image: &Image) -> Result<bool, StepError> {
    let found = context.app.store.upload_observe(place_of(image)).await;
    found.map(|size| size.is_some()).map_err(|error| store_error(&error))
}

/// The request took the name in its own transaction; this step is there to undo that, with what was uploaded before.
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
        remove_content(context).await?;
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
        let (image, from) = image_there(context).await?;
        let there = has_content(context, &image).await?
            || match image.format {
                ImageFormat::Raw => false,
                ImageFormat::Qcow2 => from.is_none() || uploaded(context, &image).await?,
            };
        Ok(if there { Observed::Done } else { Observed::NotDone })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let (image, from) = image_there(context).await?;
        match from {
            Some(ImportFrom::File(file)) => copy_file(context, &image, file).await,
            Some(ImportFrom::Stored(name)) => copy_stored(context, &image, &name).await,
            // It was uploaded: there is nothing to copy.
            None if image.format == ImageFormat::Qcow2 => Ok(()),
            None => Err(StepError::never("it is not known what is imported")),
        }
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        remove_content(context).await
    }
}

/// Copies a file of the import directory.
async fn copy_file(context: &Context, image: &Image, file: String) -> Result<(), StepError> {
    let off = || StepError::never("importing is switched off").coded(Code::ImportUnsupported.as_str());
    let directory = context.app.import_dir.clone().ok_or_else(off)?;
    let format = image.format;
    let (source, _) = tokio::task::spawn_blocking(move || directory.open(&file, format))
        .await
        .map_err(|error| StepError::later(error.to_string()))?
        .map_err(|error| StepError::never(error.to_string()).coded(code::of_import_file(&error).as_str()))?;
    let (store, place) = (&context.app.store, place_of(image));
    context
        .with_progress(|progress| async move {
            match format {
                ImageFormat::Raw => store.image_import(place, source, &*progress).await,
                ImageFormat::Qcow2 => store.upload_copy(place, source, &*progress).await,
            }
        })
        .await
}

/// Copies an image that is in the store already.
async fn copy_stored(context: &Context, image: &Image, name: &str) -> Result<(), StepError> {
    let source: StoredSource = name.parse().map_err(|_| StepError::never("its source has no name"))?;
    let (store, place) = (&context.app.store, place_of(image));
    context
        .with_progress(|progress| async move { store.image_import_stored(place, &source, &*progress).await })
        .await
}

/// Makes the raw disk of an uploaded or copied file. It looks at the file again: nobody changes it any more.
struct Convert;

#[async_trait]
impl Step<Context> for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let (image, _) = image_there(context).await?;
        Ok(if has_content(context, &image).await? { Observed::Done } else { Observed::NotDone })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let (image, _) = image_there(context).await?;
        let (store, place, format) = (&context.app.store, place_of(&image), image.format);
        context
            .with_progress(|progress| async move { store.image_convert(place, format, &*progress).await })
            .await
    }

    /// The step before removes the image whole.
    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

/// Removes the file that the disk was made from.
struct RemoveUpload;

#[async_trait]
impl Step<Context> for RemoveUpload {
    fn name(&self) -> &'static str {
        "remove-upload"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let (image, _) = image_there(context).await?;
        Ok(if uploaded(context, &image).await? { Observed::NotDone } else { Observed::Done })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let (image, _) = image_there(context).await?;
        context.app.store.upload_remove(place_of(&image)).await.map_err(|error| store_error(&error))
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
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
            .system_write(move |tx| {
                let project = tx.project(image.project);
                let written = bmi_db::image::sealed(tx, project, image.id, sealed.size, &sealed.sha256);
                Ok::<_, AppError>(written?)
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
        let left = has_content(context, &image).await? || uploaded(context, &image).await?;
        Ok(if left { Observed::NotDone } else { Observed::Done })
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
