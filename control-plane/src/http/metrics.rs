//! `/metrics`.

use actix_web::{HttpResponse, web};

use super::answer::{ApiError, no_such_method};
use super::request::Request;
use crate::app::metrics as app;

/// Media type of the text (OpenMetrics 1.0).
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/metrics").get(metrics).default_service(web::to(no_such_method)));
}

/// Metrics of the control plane, and of agents and targets as agents report them.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(request: Request) -> Result<HttpResponse, ApiError> {
    let text = app::metrics(&request.app, &request.caller).await?;
    Ok(HttpResponse::Ok().content_type(OPENMETRICS).body(text))
}
