//! `/v1/audit`.

use actix_web::{HttpResponse, web};
use bmi_api::{AuditChain, AuditRecord, Code, Page};
use utoipa::IntoParams;

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::openapi::{OfProject, PageQuery};
use super::request::Request;
use crate::app::audit as app;

/// Rows of the chain in one answer.
const ROWS: i64 = 500;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let list = web::resource("/v1/audit").get(list).default_service(web::to(no_such_method));
    let chain = web::resource("/v1/audit/chain").get(chain).default_service(web::to(no_such_method));
    config.service(list).service(chain);
}

/// What is looked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `list` reads")]
pub(super) struct AuditQuery {
    /// Only by this subject.
    #[param(required = false)]
    actor: String,
    /// Only this action: `image:write`.
    #[param(required = false)]
    action: String,
    /// Only `done`, `failed` or `denied`.
    #[param(required = false, pattern = "^(done|failed|denied)$")]
    outcome: String,
}

/// Lists lines of the audit log, oldest first: of one project when given.
#[utoipa::path(get, path = "/v1/audit", params(PageQuery, OfProject, AuditQuery), responses((status = 200, body = Page<AuditRecord>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "audit", &["project", "actor", "action", "outcome"])?;
    let search = app::Search {
        project: query.filter("project"),
        actor: query.filter("actor"),
        action: query.filter("action"),
        outcome: query.filter("outcome"),
    };
    let items = app::audit_list(&request.app, &request.caller, search, query.after()).await?;
    Ok(query.page(items, |record| record.id)?.respond())
}

/// Where a piece of the chain begins.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `chain` reads")]
pub(super) struct ChainQuery {
    /// The last place that is known already.
    #[param(required = false, minimum = 0, default = 0)]
    after: i64,
}

/// The chain behind a place, at most 500 rows, with its signed head: for those who verify it.
#[utoipa::path(get, path = "/v1/audit/chain", params(ChainQuery), responses((status = 200, body = AuditChain)))]
pub(super) async fn chain(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::plain(&request, &["after"])?;
    let after = match query.filter("after") {
        None => 0,
        Some(text) => text.parse().ok().filter(|after| *after >= 0).ok_or_else(|| {
            ApiError::new(Code::BadRequest, format!("after must be a place of the chain, not `{text}`"))
        })?,
    };
    let chain = app::audit_chain(&request.app, &request.caller, after, ROWS).await?;
    Ok(Answer::ok(chain)?.respond())
}
