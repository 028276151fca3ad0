//! Projects.

use bmi_api::{Blocker, Code, NewProject, Project, ProjectPatch};
use bmi_auth::Caller;
use bmi_db::{After, Reference, Tx};
use bmi_types::{Name, ProjectId, Timestamp};

use super::authorize::{Action, permit};
use super::{App, if_match, reference, stale};
use crate::error::AppError;

/// Finds a project by a path's text.
pub(crate) fn find(tx: &mut Tx<'_>, text: &str) -> Result<Project, AppError> {
    bmi_db::project::find(tx, &reference(text)?)?.ok_or_else(AppError::not_found)
}

fn name_is_free(tx: &mut Tx<'_>, name: &Name) -> Result<(), AppError> {
    match bmi_db::project::find(tx, &Reference::Name(name.clone()))? {
        Some(_) => Err(AppError::refused(Code::Duplicate, format!("a project called `{name}` exists"))),
        None => Ok(()),
    }
}

/// Creates a project.
pub async fn project_create(app: &App, caller: &Caller, new: NewProject) -> Result<Project, AppError> {
    permit(caller, Action::ProjectWrite)?;
    app.db
        .write(move |tx| {
            name_is_free(tx, &new.name)?;
            Ok(bmi_db::project::insert(tx, ProjectId::generate(), &new, Timestamp::now())?)
        })
        .await
}

/// Shows a project.
pub async fn project_show(app: &App, caller: &Caller, project: String) -> Result<Project, AppError> {
    permit(caller, Action::ProjectRead)?;
    app.db.read(move |tx| find(tx, &project)).await
}

/// Lists projects.
pub async fn project_list(app: &App, caller: &Caller, after: After) -> Result<Vec<Project>, AppError> {
    permit(caller, Action::ProjectRead)?;
    app.db.read(move |tx| Ok(bmi_db::project::list(tx, after)?)).await
}

/// Changes a project.
pub async fn project_update(
    app: &App,
    caller: &Caller,
    project: String,
    patch: ProjectPatch,
    version: Option<i64>,
) -> Result<Project, AppError> {
    permit(caller, Action::ProjectWrite)?;
    app.db
        .write(move |tx| {
            let mut found = find(tx, &project)?;
            if_match(version, found.version)?;
            if let Some(name) = patch.name.filter(|name| *name != found.name) {
                name_is_free(tx, &name)?;
                found.name = name;
            }
            if let Some(description) = patch.description {
                found.description = description;
            }
            if !bmi_db::project::update(tx, &found)? {
                return Err(stale(found.version));
            }
            found.version += 1;
            Ok(found)
        })
        .await
}

/// Deletes a project that owns nothing.
pub async fn project_delete(
    app: &App,
    caller: &Caller,
    project: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    permit(caller, Action::ProjectWrite)?;
    app.db
        .write(move |tx| {
            let found = find(tx, &project)?;
            if_match(version, found.version)?;
            let blockers = blockers(tx, found.id)?;
            if !blockers.is_empty() {
                return Err(AppError::blocked(
                    format!("project `{}` still owns something", found.name),
                    blockers,
                ));
            }
            Ok(bmi_db::project::delete(tx, found.id)?)
        })
        .await
}

fn blockers(tx: &mut Tx<'_>, project: ProjectId) -> Result<Vec<Blocker>, AppError> {
    let first = After { id: uuid::Uuid::nil(), limit: 100 };
    let blocker =
        |kind: &str, id: String, name: &Name| Blocker { kind: kind.to_owned(), id, name: name.to_string() };
    let mut blockers = Vec::new();
    for instance in bmi_db::instance::list(tx, project, first)? {
        blockers.push(blocker("instance", instance.id.to_string(), &instance.name));
    }
    for image in bmi_db::image::list(tx, project, first)? {
        blockers.push(blocker("image", image.id.to_string(), &image.name));
    }
    for node in bmi_db::node::list(tx, Some(project), first)? {
        blockers.push(blocker("node", node.id.to_string(), &node.name));
    }
    Ok(blockers)
}
