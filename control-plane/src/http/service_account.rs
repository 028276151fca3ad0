//! `/v1/projects/{project}/service-accounts`.

use actix_web::{HttpResponse, web};
use bmi_api::{
    NewServiceAccount, NewServiceToken, Page, ServiceAccount, ServiceAccountPatch, ServiceAccountWithToken,
};

use super::answer::{Answer, ApiError, Outcome, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::{IfMatch, PageQuery};
use super::request::Request;
use crate::app::service_account as app;

/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 1024;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/projects/{project}/service-accounts")
        .get(list)
        .post(create)
        .default_service(web::to(no_such_method));
    let one = web::resource("/v1/projects/{project}/service-accounts/{account}")
        .get(show)
        .patch(update)
        .delete(delete)
        .default_service(web::to(no_such_method));
    let tokens = web::resource("/v1/projects/{project}/service-accounts/{account}/tokens")
        .post(rotate)
        .default_service(web::to(no_such_method));
    let token = web::resource("/v1/projects/{project}/service-accounts/{account}/tokens/{token}")
        .delete(revoke)
        .default_service(web::to(no_such_method));
    config.service(all).service(one).service(tokens).service(token);
}

fn path(request: &Request) -> (String, String) {
    (request.path("project"), request.path("account"))
}

/// Answers with a token: this once, and kept sealed.
fn with_token(made: ServiceAccountWithToken, place: String) -> Outcome {
    let version = made.account.version;
    Ok(Answer::created(made, place, version)?.secret())
}

/// Creates a service account with a role and a token, which is shown this once.
#[utoipa::path(post, path = "/v1/projects/{project}/service-accounts", request_body = NewServiceAccount, responses((status = 201, body = ServiceAccountWithToken)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let description = fields.text("description", DESCRIPTION_MAX).unwrap_or_default();
        let role = fields.required("role");
        if !fields.has("scopes") {
            fields.fault("scopes", "is missing");
        }
        let scopes: Option<Vec<String>> = fields.list("scopes");
        let expires_days = fields.required("expires_days");
        fields.faults(scopes.as_deref().map(app::scope_faults).unwrap_or_default());
        let faults = expires_days.map(|days| app::expiry_faults(&request.app, days));
        fields.faults(faults.unwrap_or_default());
        let new = fields.finish(|| {
            let (role, scopes, expires_days) = (role?, scopes?, expires_days?);
            Some(NewServiceAccount { name: name?, description, role, scopes, expires_days })
        })?;
        let project = request.path("project");
        let made = app::service_account_create(&request.app, &request.caller, project, new).await?;
        let account = &made.account;
        let place = format!("/v1/projects/{}/service-accounts/{}", account.project, account.id);
        with_token(made, place)
    })
    .await
}

/// Lists the service accounts of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/service-accounts", params(PageQuery), responses((status = 200, body = Page<ServiceAccount>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "service-accounts", &[])?;
    let project = request.path("project");
    let items = app::service_account_list(&request.app, &request.caller, project, query.after()).await?;
    Ok(query.page(items, |account| account.id.uuid())?.respond())
}

/// Shows a service account.
#[utoipa::path(get, path = "/v1/projects/{project}/service-accounts/{account}", responses((status = 200, body = ServiceAccount)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, account) = path(&request);
    let account = app::service_account_show(&request.app, &request.caller, project, account).await?;
    let version = account.version;
    Ok(Answer::versioned(account, version)?.respond())
}

/// Changes a service account. Absent fields stay.
#[utoipa::path(patch, path = "/v1/projects/{project}/service-accounts/{account}", params(IfMatch), request_body = ServiceAccountPatch, responses((status = 200, body = ServiceAccount)))]
pub(super) async fn update(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let description = fields.text("description", DESCRIPTION_MAX);
    let scopes: Option<Vec<String>> = fields.list("scopes");
    fields.faults(scopes.as_deref().map(app::scope_faults).unwrap_or_default());
    let patch = fields.finish(|| Some(ServiceAccountPatch { description, scopes }))?;
    let (app, caller, version) = (&request.app, &request.caller, request.if_match);
    let account = app::service_account_update(app, caller, path(&request), patch, version).await?;
    let version = account.version;
    Ok(Answer::versioned(account, version)?.respond())
}

/// Deletes a service account, its tokens and its roles.
#[utoipa::path(delete, path = "/v1/projects/{project}/service-accounts/{account}", params(IfMatch), responses((status = 204)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let (project, account) = path(&request);
    let version = request.if_match;
    app::service_account_delete(&request.app, &request.caller, project, account, version).await?;
    Ok(Answer::nothing()?.respond())
}

/// Makes a new token, which is shown this once; those before it end, or live on for as long as is said.
#[utoipa::path(post, path = "/v1/projects/{project}/service-accounts/{account}/tokens", operation_id = "rotate", request_body = NewServiceToken, responses((status = 201, body = ServiceAccountWithToken)))]
pub(super) async fn rotate(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let expires_days = fields.required("expires_days");
        let overlap_s = fields.optional("overlap_s").unwrap_or_default();
        let faults = expires_days.map(|days| app::expiry_faults(&request.app, days));
        fields.faults(faults.unwrap_or_default());
        fields.faults(app::overlap_faults(overlap_s));
        let new = fields.finish(|| Some(NewServiceToken { expires_days: expires_days?, overlap_s }))?;
        let (project, account) = path(&request);
        let made = app::service_account_rotate(&request.app, &request.caller, project, account, new).await?;
        let account = &made.account;
        let token = account.tokens.last().map(|token| token.id.to_string()).unwrap_or_default();
        let place =
            format!("/v1/projects/{}/service-accounts/{}/tokens/{token}", account.project, account.id);
        with_token(made, place)
    })
    .await
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/v1/projects/{project}/service-accounts/{account}/tokens/{token}", operation_id = "revoke", responses((status = 204)))]
pub(super) async fn revoke(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let ((project, account), token) = (path(&request), request.path("token"));
    app::service_account_revoke(&request.app, &request.caller, project, account, token).await?;
    Ok(Answer::nothing()?.respond())
}
