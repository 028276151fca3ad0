//! `/v1/projects/{project}/members`, and `/v1/members` for those who have a role everywhere.

use actix_web::{HttpResponse, web};
use bmi_api::{Member, NewMember, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::PageQuery;
use super::request::Request;
use crate::app::member as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    const IN_PROJECT: &str = "/v1/projects/{project}/members";
    let all = web::resource(IN_PROJECT).get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource(format!("{IN_PROJECT}/{{member}}"))
        .delete(delete)
        .default_service(web::to(no_such_method));
    let everywhere = web::resource("/v1/members")
        .get(list_everywhere)
        .post(create_everywhere)
        .default_service(web::to(no_such_method));
    let one_everywhere = web::resource("/v1/members/{member}")
        .delete(delete_everywhere)
        .default_service(web::to(no_such_method));
    config.service(all).service(one).service(everywhere).service(one_everywhere);
}

async fn listed(request: Request, project: Option<String>) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "members", &[])?;
    let items = app::member_list(&request.app, &request.caller, project, query.after()).await?;
    Ok(query.page(items, |member| member.id)?.respond())
}

async fn created(request: Request, project: Option<String>) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let subject: Option<String> = fields.required("subject");
        let role = fields.required("role");
        fields.faults(subject.as_deref().map(app::subject_faults).unwrap_or_default());
        let new = fields.finish(|| Some(NewMember { subject: subject?, role: role? }))?;
        let place = match &project {
            Some(project) => format!("/v1/projects/{project}/members"),
            None => "/v1/members".to_owned(),
        };
        let member = app::member_create(&request.app, &request.caller, project, new).await?;
        let location = format!("{place}/{}", member.id);
        Answer::created(member, location, 1)
    })
    .await
}

async fn deleted(request: Request, project: Option<String>) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let member = request.path("member");
    app::member_delete(&request.app, &request.caller, project, member).await?;
    Ok(Answer::nothing()?.respond())
}

/// Lists who has which role in a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/members", params(PageQuery), responses((status = 200, body = Page<Member>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let project = request.path("project");
    listed(request, Some(project)).await
}

/// Gives a role in a project. One that the subject has already stays as it is.
#[utoipa::path(post, path = "/v1/projects/{project}/members", request_body = NewMember, responses((status = 201, body = Member)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    let project = request.path("project");
    created(request, Some(project)).await
}

/// Takes a role in a project away.
#[utoipa::path(delete, path = "/v1/projects/{project}/members/{member}", responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    let project = request.path("project");
    deleted(request, Some(project)).await
}

/// Lists who has which role everywhere, oldest first.
#[utoipa::path(get, path = "/v1/members", operation_id = "list_everywhere", params(PageQuery), responses((status = 200, body = Page<Member>)))]
pub(super) async fn list_everywhere(request: Request) -> Result<HttpResponse, ApiError> {
    listed(request, None).await
}

/// Gives a role everywhere.
#[utoipa::path(post, path = "/v1/members", operation_id = "create_everywhere", request_body = NewMember, responses((status = 201, body = Member)))]
pub(super) async fn create_everywhere(request: Request) -> Result<HttpResponse, ApiError> {
    created(request, None).await
}

/// Takes a role away that holds everywhere.
#[utoipa::path(delete, path = "/v1/members/{member}", operation_id = "delete_everywhere", responses((status = 204)))]
pub(super) async fn delete_everywhere(request: Request) -> Result<HttpResponse, ApiError> {
    deleted(request, None).await
}
