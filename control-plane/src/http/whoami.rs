//! `/v1/whoami`.

use actix_web::{HttpResponse, web};

use super::answer::{Answer, ApiError, no_such_method};
use super::request::Request;
use crate::app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/v1/whoami").get(show).default_service(web::to(no_such_method)));
}

async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    Ok(Answer::ok(app::whoami::whoami(&request.caller))?.respond())
}
