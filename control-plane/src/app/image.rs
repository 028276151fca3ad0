//! Images.

use std::collections::BTreeSet;

use bmi_api::{
    Code, Fault, Image, ImageState, NewImage, NewImageImport, NewImageImportStored, Operation, OperationKind,
    Problem, Sharing, SharingPatch, Visibility,
};
use bmi_auth::{Action, Caller};
use bmi_db::image::{Beginning, ImportFrom};
use bmi_db::instance::Using;
use bmi_db::operation::Subject;
use bmi_db::quota::Amounts;
use bmi_db::{After, InProject, Reference, Tx};
use bmi_drivers::image::{Inspected, SIZE_MAX, SIZE_MIN};
use bmi_drivers::store::{Place, StoreError, StoredSource, StoredSourceNameError};
use bmi_types::{ByteSize, ImageFormat, ImageId, Name, ProjectId, Timestamp, VolumeId};

use super::access::Access;
use super::network::blocked;
use super::operation::{not_busy, present};
use super::{App, if_match, quota, reference, stale};
use crate::error::AppError;

/// Where an image's content is: its place in the store is named by the image's own id.
#[must_use]
pub fn place(image: ImageId, project: ProjectId) -> Place {
    Place { project, volume: VolumeId::from(image.uuid()) }
}

fn subject(image: &Image) -> Subject {
    Subject { kind: "image", id: image.id.uuid(), name: image.name.clone() }
}

/// Finds a project's own image, and asks for the right to do something with it.
pub(crate) fn find(
    access: &mut Access<'_, '_>,
    project: &str,
    text: &str,
    action: Action,
) -> Result<(Image, InProject), AppError> {
    let place = access.enter(project, action)?;
    let found = bmi_db::image::find(access, place, &reference(text)?)?.ok_or_else(AppError::not_found)?;
    Ok((found, place))
}

fn name_is_free(tx: &mut Tx<'_>, project: InProject, name: &Name) -> Result<(), AppError> {
    match bmi_db::image::find(tx, project, &Reference::Name(name.clone()))? {
        Some(_) => {
            Err(AppError::refused(Code::Duplicate, format!("the project has an image called `{name}`")))
        }
        None => Ok(()),
    }
}

fn fault(field: &str, detail: impl Into<String>) -> AppError {
    AppError::invalid(vec![Fault { field: field.to_owned(), detail: detail.into() }])
}

/// Refuses what would have to be converted where nothing can be.
fn conversion_ready(app: &App, format: ImageFormat) -> Result<(), AppError> {
    match format {
        ImageFormat::Raw => Ok(()),
        ImageFormat::Qcow2 => {
            app.store.conversion_ready().map_err(|error| fault("format", error.to_string()))
        }
    }
}

/// Refuses a disk that the whole store could not hold, and content for which there is no room now.
async fn fits(app: &App, size: ByteSize, content: ByteSize) -> Result<(), AppError> {
    let usage = app.store.usage().await?;
    if size > usage.capacity {
        let detail = format!("the image has {size}, more than the whole store");
        return Err(AppError::refused(Code::StoreFull, detail));
    }
    let free = ByteSize::new(usage.capacity.bytes().saturating_sub(usage.used.bytes()));
    if content > free {
        let detail = format!("the image needs {content}, more than the store has left");
        return Err(AppError::refused(Code::StoreFull, detail));
    }
    Ok(())
}

/// What is wrong with the size of a file that is to be sent in a format.
pub(crate) fn file_size_fault(format: ImageFormat, file_size: Option<ByteSize>) -> Option<String> {
    match (format, file_size) {
        (ImageFormat::Raw, None) => None,
        (ImageFormat::Raw, Some(_)) => Some("a raw file has the size of its disk".to_owned()),
        (ImageFormat::Qcow2, Some(file_size)) if (1..=SIZE_MAX).contains(&file_size.bytes()) => None,
        (ImageFormat::Qcow2, _) => Some(format!("must say how many bytes the file has, 1 to {SIZE_MAX}")),
    }
}

/// Creates an open image to upload to.
pub async fn image_create(
    app: &App,
    caller: &Caller,
    project: String,
    new: NewImage,
) -> Result<Image, AppError> {
    let in_project = project.clone();
    app.reading(caller, move |access| access.enter(&in_project, Action::ImageWrite)).await?;
    let size = new.virtual_size;
    if !(SIZE_MIN..=SIZE_MAX).contains(&size.bytes()) || !size.bytes().is_multiple_of(512) {
        let detail =
            format!("must be a multiple of 512, from {SIZE_MIN} to {SIZE_MAX}; it is {}", size.bytes());
        return Err(AppError::invalid(vec![Fault { field: "virtual_size".to_owned(), detail }]));
    }
    if let Some(detail) = file_size_fault(new.format, new.file_size) {
        return Err(fault("file_size", detail));
    }
    let file_size = new.file_size.unwrap_or(size);
    conversion_ready(app, new.format)?;
    fits(app, size, file_size).await?;
    let defaults = app.quota_defaults;
    app.changing(caller, move |access| {
        let place = access.enter(&project, Action::ImageWrite)?;
        name_is_free(access, place, &new.name)?;
        let more = Amounts {
            images: 1,
            virtual_bytes: size.bytes(),
            used_bytes: file_size.bytes(),
            ..Amounts::default()
        };
        quota::room(access, &defaults, place, &more)?;
        let beginning = Beginning {
            id: ImageId::generate(),
            project: place.id(),
            name: new.name,
            format: new.format,
            virtual_size: size,
            file_size,
            state: ImageState::Open,
            import: None,
        };
        let image = bmi_db::image::insert(access, &beginning, Timestamp::now())?;
        access.did("image", image.id, &image.name);
        Ok(image)
    })
    .await
}

/// Refuses what this server does not import: which field that is, and why.
fn import_unsupported(field: &str, detail: &str) -> AppError {
    let errors = vec![Fault { field: field.to_owned(), detail: detail.to_owned() }];
    AppError::Refused(Box::new(Problem { errors, ..Problem::new(Code::ImportUnsupported, detail) }))
}

/// Imports a file of the import directory, and seals it.
pub async fn image_import(
    app: &App,
    caller: &Caller,
    project: String,
    new: NewImageImport,
) -> Result<Operation, AppError> {
    let in_project = project.clone();
    app.reading(caller, move |access| access.enter(&in_project, Action::ImageImport)).await?;
    let Some(import_dir) = app.import_dir.clone() else {
        let detail = "this server has no import_dir configured; upload the image instead";
        return Err(import_unsupported("import_file", detail));
    };
    let (file, format) = (new.file.clone(), new.format);
    let (file, inspected) = tokio::task::spawn_blocking(move || import_dir.open(&file, format))
        .await
        .map_err(|error| AppError::Defect(error.to_string()))?
        .map_err(|error| fault("import_file", error.to_string()))?;
    conversion_ready(app, format)?;
    let file_size = file.metadata().map(|metadata| metadata.len());
    let file_size = file_size.map_err(|error| fault("import_file", error.to_string()))?;
    if format != ImageFormat::Raw {
        fits(app, inspected.virtual_size, inspected.content).await?;
    }
    let import = Import {
        name: new.name,
        format,
        file_size: ByteSize::new(file_size),
        inspected,
        from: ImportFrom::File(new.file),
    };
    import_begin(app, caller, project, import).await
}

/// Imports an image that is in the store already, and seals it.
pub async fn image_import_stored(
    app: &App,
    caller: &Caller,
    project: String,
    new: NewImageImportStored,
) -> Result<Operation, AppError> {
    let in_project = project.clone();
    app.reading(caller, move |access| access.enter(&in_project, Action::ImageImport)).await?;
    let source: StoredSource =
        new.source.parse().map_err(|error: StoredSourceNameError| fault("import_rbd", error.to_string()))?;
    let inspected = app.store.source_inspect(&source).await?;
    let import = Import {
        name: new.name,
        format: ImageFormat::Raw,
        file_size: inspected.virtual_size,
        inspected,
        from: ImportFrom::Stored(source.to_string()),
    };
    import_begin(app, caller, project, import).await
}

/// An import that can begin.
struct Import {
    name: Name,
    format: ImageFormat,
    file_size: ByteSize,
    inspected: Inspected,
    from: ImportFrom,
}

async fn import_begin(
    app: &App,
    caller: &Caller,
    project: String,
    import: Import,
) -> Result<Operation, AppError> {
    let defaults = app.quota_defaults;
    app.changing(caller, move |access| {
        let place = access.enter(&project, Action::ImageImport)?;
        name_is_free(access, place, &import.name)?;
        let more = Amounts {
            images: 1,
            virtual_bytes: import.inspected.virtual_size.bytes(),
            used_bytes: import.inspected.content.bytes(),
            ..Amounts::default()
        };
        quota::room(access, &defaults, place, &more)?;
        let beginning = Beginning {
            id: ImageId::generate(),
            project: place.id(),
            name: import.name,
            format: import.format,
            virtual_size: import.inspected.virtual_size,
            file_size: import.file_size,
            state: ImageState::Sealing,
            import: Some(import.from),
        };
        let now = Timestamp::now();
        let image = bmi_db::image::insert(access, &beginning, now)?;
        begin(access, OperationKind::ImageImport, &image, now)
    })
    .await
    .inspect(|_| app.wake.operations.ring())
}

fn begin(
    access: &mut Access<'_, '_>,
    kind: OperationKind,
    image: &Image,
    now: Timestamp,
) -> Result<Operation, AppError> {
    let subject = subject(image);
    let requested_by = access.caller().subject.to_string();
    let stored = bmi_db::operation::insert(access, kind, image.project, &subject, &requested_by, now)?;
    access.did_to("image", image.id, &image.name, format!("{kind}, operation {}", stored.id));
    Ok(present(stored))
}

/// Shows an image.
pub async fn image_show(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
) -> Result<Image, AppError> {
    app.reading(caller, move |access| {
        let place = access.enter(&project, Action::ImageRead)?;
        bmi_db::image::usable(access, place, &reference(&image)?)?.ok_or_else(AppError::not_found)
    })
    .await
}

/// Lists a project's images.
pub async fn image_list(
    app: &App,
    caller: &Caller,
    project: String,
    after: After,
) -> Result<Vec<Image>, AppError> {
    app.reading(caller, move |access| {
        let place = access.enter(&project, Action::ImageRead)?;
        Ok(bmi_db::image::list_usable(access, place, after)?)
    })
    .await
}

/// Finds an image that can be sealed now.
fn sealable(
    access: &mut Access<'_, '_>,
    project: &str,
    image: &str,
    version: Option<i64>,
) -> Result<(Image, InProject), AppError> {
    let (found, place) = find(access, project, image, Action::ImageWrite)?;
    if_match(version, found.version)?;
    not_busy(access, found.id.uuid())?;
    let wrong = |detail: String| Err(AppError::refused(Code::WrongState, detail));
    match &found.upload {
        None => wrong(format!("image `{}` is {} already", found.name, found.state)),
        Some(upload) if upload.offset < upload.size => {
            let missing = upload.size.bytes() - upload.offset.bytes();
            wrong(format!("{missing} bytes of image `{}` are missing", found.name))
        }
        Some(_) => Ok((found, place)),
    }
}

/// Seals an image whose bytes are all there; what is not raw is converted before. An image whose bytes are refused is
/// removed: they cannot be sent again.
pub async fn image_seal(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
    version: Option<i64>,
) -> Result<Operation, AppError> {
    let (in_project, name) = (project.clone(), image.clone());
    let (found, _) = app.reading(caller, move |access| sealable(access, &in_project, &name, version)).await?;
    conversion_ready(app, found.format)?;
    // Nobody writes meanwhile: every byte is there, and what is there is not written again.
    let refused = match content_check(app, &found).await {
        Ok(()) => None,
        Err(error @ AppError::Refused(_)) => Some(error),
        Err(error) => return Err(error),
    };
    let kind = match (&refused, found.format) {
        (Some(_), _) => OperationKind::ImageDelete,
        (None, ImageFormat::Raw) => OperationKind::ImageSeal,
        (None, ImageFormat::Qcow2) => OperationKind::ImageImport,
    };
    let next = if refused.is_some() { ImageState::Deleting } else { ImageState::Sealing };
    let operation = app
        .changing(caller, move |access| {
            let (found, place) = sealable(access, &project, &image, Some(found.version))?;
            bmi_db::image::state_change(access, place, found.id, ImageState::Open, next)?;
            begin(access, kind, &found, Timestamp::now())
        })
        .await
        .inspect(|_| app.wake.operations.ring())?;
    refused.map_or(Ok(operation), Err)
}

/// Looks at the bytes that were uploaded.
async fn content_check(app: &App, image: &Image) -> Result<(), AppError> {
    let refused = |detail: String| {
        let detail = format!("{detail}; image `{}` is removed", image.name);
        AppError::refused(Code::ImageRefused, detail)
    };
    let inspected = match app.store.upload_inspect(place(image.id, image.project), image.format).await {
        Err(StoreError::Refused(reason)) => return Err(refused(reason.to_string())),
        inspected => inspected?,
    };
    if inspected.virtual_size != image.virtual_size {
        let (found, declared) = (inspected.virtual_size.bytes(), image.virtual_size.bytes());
        return Err(refused(format!("its disk has {found} bytes, and {declared} were declared")));
    }
    Ok(())
}

/// Deletes an image that nothing was cloned from.
pub async fn image_delete(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
    version: Option<i64>,
) -> Result<Operation, AppError> {
    app.changing(caller, move |access| {
        let (found, place) = find(access, &project, &image, Action::ImageWrite)?;
        if_match(version, found.version)?;
        not_busy(access, found.id.uuid())?;
        access.narrow_to(Action::InstanceRead);
        let clones = bmi_db::instance::using(access, Using::Image(found.id))?;
        if clones.any() {
            return Err(blocked(format!("boot volumes were cloned from image `{}`", found.name), &clones));
        }
        bmi_db::image::state_change(access, place, found.id, found.state, ImageState::Deleting)?;
        begin(access, OperationKind::ImageDelete, &found, Timestamp::now())
    })
    .await
    .inspect(|_| app.wake.operations.ring())
}

/// The most projects that an image is shared with.
const SHARES_MAX: usize = 1000;

/// Shows who else may clone an image.
pub async fn image_sharing(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
) -> Result<(Sharing, i64), AppError> {
    app.reading(caller, move |access| {
        let (found, place) = find(access, &project, &image, Action::ImageShare)?;
        let projects = bmi_db::image::shares(access, place, found.id)?;
        Ok((Sharing { visibility: found.visibility, projects }, found.version))
    })
    .await
}

/// The ids that a request names. Of a project that the caller does not see, only the id says which is meant, and
/// nothing tells whether it exists.
fn share_ids(access: &mut Access<'_, '_>, names: &[String]) -> Result<Vec<ProjectId>, AppError> {
    let (mut ids, mut faults) = (BTreeSet::new(), Vec::new());
    if names.len() > SHARES_MAX {
        let detail = format!("at most {SHARES_MAX} projects, not {}", names.len());
        faults.push(Fault { field: "projects".to_owned(), detail });
    }
    for (position, text) in names.iter().take(SHARES_MAX).enumerate() {
        match Reference::parse(text) {
            Some(Reference::Id(id)) => drop(ids.insert(ProjectId::from(id))),
            Some(reference) => match bmi_db::project::find(access, &reference)? {
                Some((found, _)) => drop(ids.insert(found.id)),
                None => {
                    let detail = format!("you see no project `{text}`; ask its members for its id");
                    faults.push(Fault { field: format!("projects[{position}]"), detail });
                }
            },
            None => {
                let detail = format!("`{text}` is neither a name nor an id");
                faults.push(Fault { field: format!("projects[{position}]"), detail });
            }
        }
    }
    if faults.is_empty() { Ok(ids.into_iter().collect()) } else { Err(AppError::invalid(faults)) }
}

/// Changes who else may clone an image.
pub async fn image_share(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
    patch: SharingPatch,
    version: Option<i64>,
) -> Result<(Sharing, i64), AppError> {
    app.changing(caller, move |access| {
        let (found, place) = find(access, &project, &image, Action::ImageShare)?;
        if_match(version, found.version)?;
        let named = patch.projects.unwrap_or_default();
        if (patch.visibility == Visibility::Shared) == named.is_empty() {
            let detail = "names the projects with `shared`, and only then";
            return Err(fault("projects", detail));
        }
        let projects: Vec<ProjectId> =
            share_ids(access, &named)?.into_iter().filter(|id| *id != place.id()).collect();
        let now = Timestamp::now();
        if !bmi_db::image::shares_update(access, place, &found, patch.visibility, &projects, now)? {
            return Err(stale(found.version));
        }
        access.did_to(
            "image",
            found.id,
            &found.name,
            format!("{}, {} projects", patch.visibility, projects.len()),
        );
        Ok((Sharing { visibility: patch.visibility, projects }, found.version + 1))
    })
    .await
}
