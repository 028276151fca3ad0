//! `/v1/authorities`.

use actix_web::{HttpResponse, web};
use bmi_api::{Authority, NewAuthority, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::idempotency::once;
use super::request::Request;
use crate::app::authority as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all =
        web::resource("/v1/authorities").get(list).post(rotate).default_service(web::to(no_such_method));
    let one =
        web::resource("/v1/authorities/{authority}").delete(retire).default_service(web::to(no_such_method));
    config.service(all).service(one);
}

/// Lists the authorities that are trusted, oldest first: a page of its own, since there are few.
#[utoipa::path(get, path = "/v1/authorities", responses((status = 200, body = Page<Authority>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let items = app::authority_list(&request.app, &request.caller).await?;
    Ok(Answer::ok(Page { items, next: None })?.respond())
}

/// Makes a new authority, which issues the certificates of agents from now on. Those before it stay trusted.
#[utoipa::path(post, path = "/v1/authorities", operation_id = "rotate", request_body = NewAuthority, responses((status = 201, body = Authority)))]
pub(super) async fn rotate(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let after = fields.optional("after");
        let new = fields.finish(|| Some(NewAuthority { after }))?;
        let made = app::authority_rotate(&request.app, &request.caller, new).await?;
        let place = format!("/v1/authorities/{}", made.id);
        Answer::created(made, place, 1)
    })
    .await
}

/// Removes an authority that no agent needs any more: nobody trusts it from now on.
#[utoipa::path(delete, path = "/v1/authorities/{authority}", operation_id = "retire", responses((status = 204)))]
pub(super) async fn retire(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::authority_retire(&request.app, &request.caller, request.path("authority")).await?;
    Ok(Answer::nothing()?.respond())
}
