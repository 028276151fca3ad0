//! `/v1/datastores`.

use actix_web::{HttpResponse, web};
use bmi_api::{Datastore, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::request::Request;
use crate::app::datastore as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/v1/datastores").get(list).default_service(web::to(no_such_method)));
}

/// Lists the data stores, and how full they are.
#[utoipa::path(get, path = "/v1/datastores", responses((status = 200, body = Page<Datastore>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let items = app::datastore_list(&request.app, &request.caller).await?;
    Ok(Answer::ok(Page { items, next: None })?.respond())
}
