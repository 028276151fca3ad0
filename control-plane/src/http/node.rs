//! `/v1/nodes`.

use actix_web::{HttpResponse, web};
use bmi_api::{NewNode, Nic, Node, NodeAssign, NodePatch, Page, Power};
use bmi_types::MacAddr;
use serde::Deserialize;

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::fields::Fields;
use super::idempotency::once;
use super::openapi::{IfMatch, OfProject, PageQuery};
use super::request::Request;
use crate::app::node as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/nodes").get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource("/v1/nodes/{node}")
        .get(show)
        .patch(update)
        .delete(delete)
        .default_service(web::to(no_such_method));
    let assign =
        web::resource("/v1/nodes/{node}/assign").post(assign).default_service(web::to(no_such_method));
    let release =
        web::resource("/v1/nodes/{node}/release").post(release).default_service(web::to(no_such_method));
    config.service(all).service(one).service(assign).service(release);
}

/// A NIC as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NicField {
    mac: MacAddr,
}

fn nics(fields: &mut Fields) -> Option<Vec<Nic>> {
    let nics: Option<Vec<NicField>> = fields.list("nics");
    nics.map(|nics| nics.into_iter().map(|nic| Nic { mac: nic.mac }).collect())
}

/// Creates a node.
#[utoipa::path(post, path = "/v1/nodes", request_body = NewNode, responses((status = 201, body = Node)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        if !fields.has("nics") {
            fields.fault("nics", "is missing");
        }
        let nics = nics(&mut fields);
        let architecture = fields.optional("architecture").unwrap_or_default();
        let power = fields.optional("power").unwrap_or(Power::Manual);
        fields.faults(nics.as_deref().map(app::nic_faults).unwrap_or_default());
        fields.faults(app::architecture_faults(architecture));
        let new = fields.finish(|| Some(NewNode { name: name?, nics: nics?, architecture, power }))?;
        let node = app::node_create(&request.app, &request.caller, new).await?;
        let location = format!("/v1/nodes/{}", node.id);
        let version = node.version;
        Answer::created(node, location, version)
    })
    .await
}

/// Lists nodes, oldest first.
#[utoipa::path(get, path = "/v1/nodes", params(PageQuery, OfProject), responses((status = 200, body = Page<Node>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "nodes", &["project"])?;
    let project = query.filter("project");
    let items = app::node_list(&request.app, &request.caller, project, query.after()).await?;
    Ok(query.page(items, |node| node.id.uuid())?.respond())
}

/// Shows a node.
#[utoipa::path(get, path = "/v1/nodes/{node}", responses((status = 200, body = Node)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let node = app::node_show(&request.app, &request.caller, request.path("node")).await?;
    let version = node.version;
    Ok(Answer::versioned(node, version)?.respond())
}

/// Changes a node. Absent fields stay.
#[utoipa::path(patch, path = "/v1/nodes/{node}", params(IfMatch), request_body = NodePatch, responses((status = 200, body = Node)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let name = fields.optional("name");
    let nics = nics(&mut fields);
    fields.faults(nics.as_deref().map(app::nic_faults).unwrap_or_default());
    let patch = fields.finish(|| Some(NodePatch { name, nics }))?;
    let node = request.path("node");
    let node = app::node_update(&request.app, &request.caller, node, patch, request.if_match).await?;
    let version = node.version;
    Ok(Answer::versioned(node, version)?.respond())
}

/// Assigns a node to a project.
#[utoipa::path(post, path = "/v1/nodes/{node}/assign", params(IfMatch), request_body = NodeAssign, responses((status = 200, body = Node)))]
pub(super) async fn assign(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let project: Option<String> = fields.required("project");
        let project = fields.finish(|| project)?;
        let node = request.path("node");
        let node = app::node_assign(&request.app, &request.caller, node, project, request.if_match).await?;
        let version = node.version;
        Answer::versioned(node, version)
    })
    .await
}

/// Takes a node back from its project.
#[utoipa::path(post, path = "/v1/nodes/{node}/release", params(IfMatch), responses((status = 200, body = Node)))]
pub(super) async fn release(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        request.no_fields()?;
        let node = request.path("node");
        let node = app::node_release(&request.app, &request.caller, node, request.if_match).await?;
        let version = node.version;
        Answer::versioned(node, version)
    })
    .await
}

/// Deletes a node.
#[utoipa::path(delete, path = "/v1/nodes/{node}", params(IfMatch), responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::node_delete(&request.app, &request.caller, request.path("node"), request.if_match).await?;
    Ok(Answer::nothing()?.respond())
}
