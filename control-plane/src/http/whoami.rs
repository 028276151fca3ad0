//! `/v1/whoami`.

use actix_web::{HttpResponse, web};
use bmi_api::Whoami;

use super::answer::{Answer, ApiError, no_such_method};
use super::request::Request;
use crate::app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/v1/whoami").get(whoami).default_service(web::to(no_such_method)));
}

/// Shows who is calling.
#[utoipa::path(get, path = "/v1/whoami", responses((status = 200, body = Whoami)))]
pub(super) async fn whoami(request: Request) -> Result<HttpResponse, ApiError> {
    Ok(Answer::ok(app::whoami::whoami(&request.app, &request.caller))?.respond())
}
