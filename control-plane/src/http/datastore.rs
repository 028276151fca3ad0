//! `/v1/datastores`.

use actix_web::{HttpResponse, web};
use bmi_api::Page;

use super::answer::{Answer, ApiError, no_such_method};
use super::request::Request;
use crate::app::datastore as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/v1/datastores").get(list).default_service(web::to(no_such_method)));
}

async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let items = app::datastore_list(&request.app, &request.caller).await?;
    Ok(Answer::ok(Page { items, next: None })?.respond())
}
