//! `/v1/operations`.

use actix_web::{HttpResponse, web};
use bmi_api::{Operation, Page};
use uuid::Uuid;

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::openapi::{OfProject, PageQuery};
use super::request::Request;
use crate::app::operation as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/operations").get(list).default_service(web::to(no_such_method));
    let one = web::resource("/v1/operations/{operation}").get(show).default_service(web::to(no_such_method));
    config.service(all).service(one);
}

/// Lists operations, oldest first.
#[utoipa::path(get, path = "/v1/operations", params(PageQuery, OfProject), responses((status = 200, body = Page<Operation>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "operations", &["project"])?;
    let project = query.filter("project");
    let items = app::operation_list(&request.app, &request.caller, project, query.after()).await?;
    let id = |operation: &Operation| -> Uuid { operation.id.uuid() };
    Ok(query.page(items, id)?.respond())
}

/// Shows an operation.
#[utoipa::path(get, path = "/v1/operations/{operation}", responses((status = 200, body = Operation)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let operation = app::operation_show(&request.app, &request.caller, request.path("operation")).await?;
    Ok(Answer::ok(operation)?.respond())
}
