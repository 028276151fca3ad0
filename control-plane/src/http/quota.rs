//! `/v1/projects/{project}/quota`.

use actix_web::{HttpResponse, web};
use bmi_api::{Quota, QuotaPatch};
use bmi_types::ByteSize;

use super::answer::{Answer, ApiError, no_such_method};
use super::fields::Fields;
use super::openapi::IfMatch;
use super::request::Request;
use crate::app::quota as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let quota = web::resource("/v1/projects/{project}/quota").get(show).patch(update);
    config.service(quota.default_service(web::to(no_such_method)));
}

/// Shows what a project may have, and has.
#[utoipa::path(get, path = "/v1/projects/{project}/quota", responses((status = 200, body = Quota)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let quota = app::quota_show(&request.app, &request.caller, request.path("project")).await?;
    let version = quota.version;
    Ok(Answer::versioned(quota, version)?.respond())
}

/// A limit: `null` is something else than absent.
fn limit(fields: &mut Fields, name: &str) -> Option<Option<u64>> {
    let sent = fields.has(name);
    let value: Option<u64> = fields.optional(name);
    if value.is_some_and(|value| i64::try_from(value).is_err()) {
        fields.fault(name, format!("must be at most {}", i64::MAX));
    }
    sent.then_some(value)
}

/// Sets limits. Absent ones stay; `null` goes back to the default. What is there already stays, also when it is more.
#[utoipa::path(patch, path = "/v1/projects/{project}/quota", params(IfMatch), request_body = QuotaPatch, responses((status = 200, body = Quota)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let instances = limit(&mut fields, "instances");
    let nodes = limit(&mut fields, "nodes");
    let images = limit(&mut fields, "images");
    let virtual_bytes = limit(&mut fields, "virtual_bytes").map(|bytes| bytes.map(ByteSize::new));
    let used_bytes = limit(&mut fields, "used_bytes").map(|bytes| bytes.map(ByteSize::new));
    let patch = fields.finish(|| Some(QuotaPatch { instances, nodes, images, virtual_bytes, used_bytes }))?;
    let project = request.path("project");
    let quota = app::quota_update(&request.app, &request.caller, project, patch, request.if_match).await?;
    let version = quota.version;
    Ok(Answer::versioned(quota, version)?.respond())
}
