//! `/v1/networks`.

use actix_web::{HttpResponse, web};
use bmi_api::{Fault, Network, NetworkPatch, NetworkTimeline, NewNetwork, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::{IfMatch, PageQuery};
use super::request::Request;
use crate::app::network as app;
use crate::app::network_timeline::network_timeline;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/networks").get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource("/v1/networks/{network}")
        .get(show)
        .patch(update)
        .delete(delete)
        .default_service(web::to(no_such_method));
    let timeline = web::resource("/v1/networks/{network}/timeline")
        .get(timeline)
        .default_service(web::to(no_such_method));
    config.service(all).service(one).service(timeline);
}

/// Creates a network. Ranges that are not given are laid out by size.
#[utoipa::path(post, path = "/v1/networks", request_body = NewNetwork, responses((status = 201, body = Network)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let cidr = fields.required("cidr");
        let netboot_address = fields.optional("netboot_address");
        let target_range = fields.optional("target_range");
        let node_range_sent = fields.has("node_range");
        let node_range = fields.optional("node_range");
        let discovery_range = fields.optional("discovery_range");
        let dhcp = fields.optional("dhcp").unwrap_or_default();
        let segment = fields.optional("segment").unwrap_or_default();
        let relays: Vec<_> = fields.list("relays").unwrap_or_default();
        let projects = fields.list("projects");
        let ranges = app::Ranges { cidr, netboot_address, target_range, node_range, discovery_range };
        let mut faults = app::network_faults(&ranges, dhcp, &relays, segment);
        // One that could not be read is not missing.
        faults.retain(|fault| fault.field != "node_range" || node_range.is_some() || !node_range_sent);
        fields.faults(faults);
        let new = fields.finish(|| {
            Some(NewNetwork {
                name: name?,
                cidr: cidr?,
                netboot_address,
                target_range,
                node_range,
                discovery_range,
                dhcp,
                relays,
                segment,
                projects,
            })
        })?;
        let network = app::network_create(&request.app, &request.caller, new).await?;
        let location = format!("/v1/networks/{}", network.id);
        let version = network.version;
        Answer::created(network, location, version)
    })
    .await
}

/// Lists networks, oldest first.
#[utoipa::path(get, path = "/v1/networks", params(PageQuery), responses((status = 200, body = Page<Network>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "networks", &[])?;
    let items = app::network_list(&request.app, &request.caller, query.after()).await?;
    Ok(query.page(items, |network| network.id.uuid())?.respond())
}

/// Shows a network.
#[utoipa::path(get, path = "/v1/networks/{network}", responses((status = 200, body = Network)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let network = app::network_show(&request.app, &request.caller, request.path("network")).await?;
    let version = network.version;
    Ok(Answer::versioned(network, version)?.respond())
}

/// Shows what happened to a network as a whole: faults that its agent tells, and who its agents are.
#[utoipa::path(get, path = "/v1/networks/{network}/timeline", responses((status = 200, body = NetworkTimeline)))]
pub(super) async fn timeline(request: Request) -> Result<HttpResponse, ApiError> {
    let shown = network_timeline(&request.app, &request.caller, request.path("network")).await?;
    Ok(Answer::ok(shown)?.respond())
}

/// Changes which projects may use a network.
#[utoipa::path(patch, path = "/v1/networks/{network}", params(IfMatch), request_body = NetworkPatch, responses((status = 200, body = Network)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    if !fields.has("projects") {
        let detail = "is missing: a list of projects, or null for every project".to_owned();
        fields.faults(vec![Fault { field: "projects".to_owned(), detail }]);
    }
    let projects = fields.list("projects");
    let patch = fields.finish(|| Some(NetworkPatch { projects }))?;
    let name = request.path("network");
    let network = app::network_update(&request.app, &request.caller, name, patch, request.if_match).await?;
    let version = network.version;
    Ok(Answer::versioned(network, version)?.respond())
}

/// Deletes a network.
#[utoipa::path(delete, path = "/v1/networks/{network}", params(IfMatch), responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::network_delete(&request.app, &request.caller, request.path("network"), request.if_match).await?;
    Ok(Answer::nothing()?.respond())
}
