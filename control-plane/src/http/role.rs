//! `/v1/roles` and `/v1/policy/explain`.

use actix_web::{HttpResponse, web};
use bmi_api::{Explanation, NewRole, Page, Role, RolePatch};
use utoipa::IntoParams;

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::IfMatch;
use super::request::Request;
use crate::app::role as app;

/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 1024;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/roles").get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource("/v1/roles/{role}")
        .get(show)
        .patch(update)
        .delete(delete)
        .default_service(web::to(no_such_method));
    let explain = web::resource("/v1/policy/explain").get(explain).default_service(web::to(no_such_method));
    config.service(all).service(one).service(explain);
}

/// Lists all roles on one page, the built-in ones first.
#[utoipa::path(get, path = "/v1/roles", responses((status = 200, body = Page<Role>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let items = app::role_list(&request.app, &request.caller).await?;
    Ok(Answer::ok(Page { items, next: None })?.respond())
}

/// Makes a custom role.
#[utoipa::path(post, path = "/v1/roles", request_body = NewRole, responses((status = 201, body = Role)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let description = fields.text("description", DESCRIPTION_MAX).unwrap_or_default();
        if !fields.has("permissions") {
            fields.fault("permissions", "is missing");
        }
        let permissions = fields.list("permissions");
        let new = fields.finish(|| Some(NewRole { name: name?, description, permissions: permissions? }))?;
        let role = app::role_create(&request.app, &request.caller, new).await?;
        let (location, version) = (format!("/v1/roles/{}", role.name), role.version);
        Answer::created(role, location, version)
    })
    .await
}

/// Shows a role.
#[utoipa::path(get, path = "/v1/roles/{role}", responses((status = 200, body = Role)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let role = app::role_show(&request.app, &request.caller, request.path("role")).await?;
    let version = role.version;
    Ok(Answer::versioned(role, version)?.respond())
}

/// Changes a custom role, for everybody who has it. Absent fields stay.
#[utoipa::path(patch, path = "/v1/roles/{role}", params(IfMatch), request_body = RolePatch, responses((status = 200, body = Role)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let description = fields.text("description", DESCRIPTION_MAX);
    let permissions = fields.list("permissions");
    let patch = fields.finish(|| Some(RolePatch { description, permissions }))?;
    let name = request.path("role");
    let role = app::role_update(&request.app, &request.caller, name, patch, request.if_match).await?;
    let version = role.version;
    Ok(Answer::versioned(role, version)?.respond())
}

/// Removes a custom role that nobody has.
#[utoipa::path(delete, path = "/v1/roles/{role}", params(IfMatch), responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::role_delete(&request.app, &request.caller, request.path("role"), request.if_match).await?;
    Ok(Answer::nothing()?.respond())
}

/// What is asked of the policy.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `explain` reads")]
pub(super) struct ExplainQuery {
    /// What: `image:write`.
    #[param(pattern = r"^[^\x00]*$")]
    action: String,
    /// In which project (name or id); everywhere when absent.
    #[param(required = false, pattern = r"^[^\x00]*$")]
    project: String,
    /// Of whom; the caller when absent.
    #[param(required = false, pattern = r"^[^\x00]*$")]
    subject: String,
    /// Groups that the subject is in, with commas between them.
    #[param(required = false, pattern = r"^[^\x00]*$")]
    groups: String,
}

/// Tells whether something is allowed, and which rule decides.
#[utoipa::path(get, path = "/v1/policy/explain", params(ExplainQuery), responses((status = 200, body = Explanation)))]
pub(super) async fn explain(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::plain(&request, &["action", "project", "subject", "groups"])?;
    let groups = query.filter("groups").unwrap_or_default();
    let question = app::Question {
        subject: query.filter("subject"),
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        action: query.filter("action").unwrap_or_default(),
        project: query.filter("project"),
    };
    let explanation = app::policy_explain(&request.app, &request.caller, question).await?;
    Ok(Answer::ok(explanation)?.respond())
}
