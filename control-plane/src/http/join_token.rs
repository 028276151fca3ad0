//! `/v1/join-tokens`.

use actix_web::{HttpResponse, web};
use bmi_api::{JoinToken, JoinTokenWithSecret, NewJoinToken, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::PageQuery;
use super::request::Request;
use crate::app::join_token as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all =
        web::resource("/v1/join-tokens").get(list).post(create).default_service(web::to(no_such_method));
    let one =
        web::resource("/v1/join-tokens/{token}").delete(revoke).default_service(web::to(no_such_method));
    config.service(all).service(one);
}

/// Makes a token with which one agent joins a network, once. It is shown this once.
#[utoipa::path(post, path = "/v1/join-tokens", request_body = NewJoinToken, responses((status = 201, body = JoinTokenWithSecret)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let network = fields.required("network");
        let ttl_s = fields.optional("ttl_s").unwrap_or(app::TTL_MAX_S);
        if !(1..=app::TTL_MAX_S).contains(&ttl_s) {
            fields.fault("ttl_s", format!("must be 1 to {}", app::TTL_MAX_S));
        }
        let new = fields.finish(|| Some(NewJoinToken { network: network?, ttl_s }))?;
        let made = app::join_token_create(&request.app, &request.caller, new).await?;
        let place = format!("/v1/join-tokens/{}", made.join_token.id);
        Ok(Answer::created(made, place, 1)?.secret())
    })
    .await
}

/// Lists join tokens, oldest first, without what proves anything.
#[utoipa::path(get, path = "/v1/join-tokens", params(PageQuery), responses((status = 200, body = Page<JoinToken>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "join-tokens", &[])?;
    let items = app::join_token_list(&request.app, &request.caller, query.after()).await?;
    Ok(query.page(items, |token| token.id.uuid())?.respond())
}

/// Ends a join token at once. An agent that joined with it stays.
#[utoipa::path(delete, path = "/v1/join-tokens/{token}", operation_id = "revoke", responses((status = 204)))]
pub(super) async fn revoke(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    app::join_token_revoke(&request.app, &request.caller, request.path("token")).await?;
    Ok(Answer::nothing()?.respond())
}
