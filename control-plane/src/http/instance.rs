//! `/v1/projects/{project}/instances`.

use actix_web::{HttpResponse, web};
use bmi_api::{Instance, NewInstance, Operation, Page, Timeline, UserData};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::{IfMatch, PageQuery};
use super::request::Request;
use crate::app::instance as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    const ALL: &str = "/v1/projects/{project}/instances";
    const ONE: &str = "/v1/projects/{project}/instances/{instance}";
    let all = web::resource(ALL).get(list).post(provision).default_service(web::to(no_such_method));
    let one = web::resource(ONE).get(show).delete(deprovision).default_service(web::to(no_such_method));
    let timeline =
        web::resource(format!("{ONE}/timeline")).get(timeline).default_service(web::to(no_such_method));
    config.service(all).service(one).service(timeline);
}

/// Provisions an instance: clones the image, prepares the network, exposes a target.
#[utoipa::path(post, path = "/v1/projects/{project}/instances", request_body = NewInstance, responses((status = 202, body = Operation)))]
pub(super) async fn provision(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let node = fields.required("node");
        let image = fields.required("image");
        let network = fields.required("network");
        let ssh_keys = fields.list("ssh_keys").unwrap_or_default();
        let user_data = fields.optional("user_data");
        let faults = fields.into_faults();
        let user_data = UserData { ssh_keys, user_data };
        let draft = app::Draft { name, node, image, network, user_data, faults };
        let project = request.path("project");
        let operation = app::instance_provision(&request.app, &request.caller, project, draft).await?;
        Answer::accepted(&operation)
    })
    .await
}

/// Lists instances, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/instances", params(PageQuery), responses((status = 200, body = Page<Instance>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "instances", &[])?;
    let project = request.path("project");
    let items = app::instance_list(&request.app, &request.caller, project, query.after()).await?;
    Ok(query.page(items, |instance| instance.id.uuid())?.respond())
}

/// Shows an instance.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}", responses((status = 200, body = Instance)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, instance) = (request.path("project"), request.path("instance"));
    let instance = app::instance_show(&request.app, &request.caller, project, instance).await?;
    let version = instance.version;
    Ok(Answer::versioned(instance, version)?.respond())
}

/// Shows how an instance was made and booted.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/timeline", responses((status = 200, body = Timeline)))]
pub(super) async fn timeline(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, instance) = (request.path("project"), request.path("instance"));
    let timeline = app::instance_timeline(&request.app, &request.caller, project, instance).await?;
    Ok(Answer::ok(timeline)?.respond())
}

/// Takes an instance away, with its boot volume.
#[utoipa::path(delete, path = "/v1/projects/{project}/instances/{instance}", params(IfMatch), responses((status = 202, body = Operation)))]
pub(super) async fn deprovision(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let (project, instance) = (request.path("project"), request.path("instance"));
    let operation =
        app::instance_deprovision(&request.app, &request.caller, project, instance, request.if_match).await?;
    Ok(Answer::accepted(&operation)?.respond())
}
