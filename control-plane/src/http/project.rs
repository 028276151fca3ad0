//! `/v1/projects`.

use actix_web::{HttpResponse, web};
use bmi_api::{NewProject, Page, Project, ProjectPatch};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::{IfMatch, PageQuery};
use super::request::Request;
use crate::app::project as app;

/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 1024;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/projects").get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource("/v1/projects/{project}")
        .get(show)
        .patch(update)
        .delete(delete)
        .default_service(web::to(no_such_method));
    config.service(all).service(one);
}

/// Creates a project.
#[utoipa::path(post, path = "/v1/projects", request_body = NewProject, responses((status = 201, body = Project)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let description = fields.text("description", DESCRIPTION_MAX).unwrap_or_default();
        let new = fields.finish(|| Some(NewProject { name: name?, description }))?;
        let project = app::project_create(&request.app, &request.caller, new).await?;
        let location = format!("/v1/projects/{}", project.id);
        let version = project.version;
        Answer::created(project, location, version)
    })
    .await
}

/// Lists projects, oldest first.
#[utoipa::path(get, path = "/v1/projects", params(PageQuery), responses((status = 200, body = Page<Project>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "projects", &[])?;
    let items = app::project_list(&request.app, &request.caller, query.after()).await?;
    Ok(query.page(items, |project| project.id.uuid())?.respond())
}

/// Shows a project.
#[utoipa::path(get, path = "/v1/projects/{project}", responses((status = 200, body = Project)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let project = app::project_show(&request.app, &request.caller, request.path("project")).await?;
    let version = project.version;
    Ok(Answer::versioned(project, version)?.respond())
}

/// Changes a project. Absent fields stay.
#[utoipa::path(patch, path = "/v1/projects/{project}", params(IfMatch), request_body = ProjectPatch, responses((status = 200, body = Project)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let name = fields.optional("name");
    let description = fields.text("description", DESCRIPTION_MAX);
    let patch = fields.finish(|| Some(ProjectPatch { name, description }))?;
    let name = request.path("project");
    let project = app::project_update(&request.app, &request.caller, name, patch, request.if_match).await?;
    let version = project.version;
    Ok(Answer::versioned(project, version)?.respond())
}

/// Deletes a project.
#[utoipa::path(delete, path = "/v1/projects/{project}", params(IfMatch), responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::project_delete(&request.app, &request.caller, request.path("project"), request.if_match).await?;
    Ok(Answer::nothing()?.respond())
}
