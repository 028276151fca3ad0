//! Projects.

use bmi_api::{Blocker, Code, NewProject, Project, ProjectPatch};
use bmi_auth::{Action, Caller};
use bmi_db::{After, InProject, Tx};
use bmi_types::{Name, ProjectId, Timestamp};

use super::access::Access;
use super::{App, if_match, stale};
use crate::error::AppError;

fn name_is_free(tx: &mut Tx<'_>, name: &Name) -> Result<(), AppError> {
    match bmi_db::project::of_name(tx, name)? {
        Some(_) => Err(AppError::refused(Code::Duplicate, format!("a project called `{name}` exists"))),
        None => Ok(()),
    }
}

/// Creates a project.
pub async fn project_create(app: &App, caller: &Caller, new: NewProject) -> Result<Project, AppError> {
    let created = app
        .changing(caller, move |access| {
            access.permit_everywhere(Action::ProjectCreate)?;
            name_is_free(access, &new.name)?;
            let created = bmi_db::project::insert(access, ProjectId::generate(), &new, Timestamp::now())?;
            access.did("project", created.id, &created.name);
            Ok(created)
        })
        .await?;
    app.policy_changed().await?;
    Ok(created)
}

/// Shows a project.
pub async fn project_show(app: &App, caller: &Caller, project: String) -> Result<Project, AppError> {
    app.reading(caller, move |access| Ok(access.project(&project, Action::ProjectRead)?.0)).await
}

/// Lists projects.
pub async fn project_list(app: &App, caller: &Caller, after: After) -> Result<Vec<Project>, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::ProjectRead)?;
        Ok(bmi_db::project::list(access, after)?)
    })
    .await
}

/// Changes a project.
pub async fn project_update(
    app: &App,
    caller: &Caller,
    project: String,
    patch: ProjectPatch,
    version: Option<i64>,
) -> Result<Project, AppError> {
    let renamed = patch.name.is_some();
    let updated = app
        .changing(caller, move |access| {
            let (mut found, place) = access.project(&project, Action::ProjectUpdate)?;
            if_match(version, found.version)?;
            if let Some(name) = patch.name.filter(|name| *name != found.name) {
                // Whether a name is taken tells of other projects.
                access.permit(Action::ProjectRename, place.into())?;
                name_is_free(access, &name)?;
                found.name = name;
            }
            if let Some(description) = patch.description {
                found.description = description;
            }
            if !bmi_db::project::update(access, &found)? {
                return Err(stale(found.version));
            }
            found.version += 1;
            access.did("project", found.id, &found.name);
            Ok(found)
        })
        .await?;
    if renamed {
        app.policy_changed().await?;
    }
    Ok(updated)
}

/// Deletes a project that owns nothing.
pub async fn project_delete(
    app: &App,
    caller: &Caller,
    project: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        let (found, place) = access.project(&project, Action::ProjectDelete)?;
        if_match(version, found.version)?;
        let blockers = blockers(access, place)?;
        if !blockers.is_empty() {
            return Err(AppError::blocked(
                format!("project `{}` still owns something", found.name),
                blockers,
            ));
        }
        access.did("project", found.id, &found.name);
        Ok(bmi_db::project::delete(access, found.id)?)
    })
    .await?;
    app.policy_changed().await
}

fn blockers(tx: &mut Access<'_, '_>, project: InProject) -> Result<Vec<Blocker>, AppError> {
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
    for account in bmi_db::service_account::list(tx, project, first, Timestamp::now())? {
        blockers.push(blocker("service-account", account.id.to_string(), &account.name));
    }
    Ok(blockers)
}
