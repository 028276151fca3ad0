//! `/v1/sign-in` and `/v1/sign-out`.
//!
//! Whoever signs in is nobody yet: these routes have no caller, no idempotency, and a limit of attempts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpMessage, HttpResponse, web};
use bmi_api::{
    Code, DeviceAnswer, DeviceQuestion, DeviceSignIn, NewDeviceSignIn, SignInProvider, SignInWays,
};
use bmi_auth::secret_token::{TokenKind, is_whole};

use super::answer::{ApiError, no_such_method};
use super::cookie::Kind;
use super::openapi::{CallbackQuery, StartQuery};
use super::request::{OpenRequest, Request};
use crate::app::authentication::Presented;
use crate::app::sign_in::{self as app, BrowserReturned};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let ways = web::resource("/v1/sign-in").get(ways).default_service(web::to(no_such_method));
    let start =
        web::resource("/v1/sign-in/{provider}/start").get(start).default_service(web::to(no_such_method));
    let callback =
        web::resource("/v1/sign-in/callback").get(callback).default_service(web::to(no_such_method));
    let device = web::resource("/v1/sign-in/device").post(device).default_service(web::to(no_such_method));
    let token =
        web::resource("/v1/sign-in/device/token").post(device_token).default_service(web::to(no_such_method));
    let out = web::resource("/v1/sign-out").post(sign_out).default_service(web::to(no_such_method));
    config.service(ways).service(start).service(callback).service(device).service(token).service(out);
}

/// Counts an attempt from the address of the connection. Headers that name another one are nobody's word.
fn attempt(request: &OpenRequest) -> Result<(), ApiError> {
    let address = request.http.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let attempt = request.app.authentication.throttle.attempt(address);
    attempt.map_err(|wait| ApiError::too_many(wait, "too many attempts to sign in; try again later"))
}

fn query(request: &OpenRequest) -> Result<BTreeMap<String, String>, ApiError> {
    web::Query::from_query(request.http.query_string())
        .map(web::Query::into_inner)
        .map_err(|_| ApiError::new(Code::BadRequest, "the query cannot be read"))
}

/// Sends a browser on. What this page's address had in it stays with us.
fn see_other(
    to: &str,
    cookies: impl IntoIterator<Item = actix_web::cookie::Cookie<'static>>,
) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::SEE_OTHER);
    response.insert_header((header::LOCATION, to)).insert_header((header::REFERRER_POLICY, "no-referrer"));
    for cookie in cookies {
        response.cookie(cookie);
    }
    response.finish()
}

/// Tells how one can sign in.
#[utoipa::path(get, path = "/v1/sign-in", responses((status = 200, body = SignInWays)))]
pub(super) async fn ways(request: OpenRequest) -> HttpResponse {
    let providers = request.app.authentication.providers.all().iter().map(|provider| SignInProvider {
        name: provider.name().to_owned(),
        start: format!("/v1/sign-in/{}/start", provider.name()),
    });
    HttpResponse::Ok().json(SignInWays { providers: providers.collect() })
}

/// Begins a browser's sign-in: sends it to the provider.
#[utoipa::path(get, path = "/v1/sign-in/{provider}/start", params(StartQuery), responses((status = 303)))]
pub(super) async fn start(request: OpenRequest) -> Result<HttpResponse, ApiError> {
    attempt(&request)?;
    let mut query = query(&request)?;
    let return_to = query.remove("return_to");
    if let Some(unknown) = query.keys().next() {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(ApiError::new(Code::BadRequest, format!("`{unknown}` is not a query parameter here")));
    }
    let provider = request.http.match_info().get("provider").unwrap_or_default();
    let begun = app::browser_begin(&request.app, provider, return_to).await?;
    Ok(see_other(&begun.url, [Kind::SignIn.set(&request.app, &begun.cookie, begun.longest)]))
}

/// Ends a browser's sign-in: the provider sends it here.
#[utoipa::path(get, path = "/v1/sign-in/callback", params(CallbackQuery), responses((status = 303)))]
pub(super) async fn callback(request: OpenRequest) -> Result<HttpResponse, ApiError> {
    attempt(&request)?;
    // Providers add what they like.
    let mut query = query(&request)?;
    let returned = BrowserReturned {
        state: query.remove("state").unwrap_or_default(),
        code: query.remove("code"),
        issuer: query.remove("iss"),
        error: query.remove("error"),
        cookie: Kind::SignIn.read(&request.app, &request.http),
        session: Kind::Session.read(&request.app, &request.http),
    };
    let signed_in = app::browser_finish(&request.app, returned, request.trace()).await?;
    let cookies = [
        Kind::SignIn.clear(&request.app),
        Kind::Session.set(&request.app, &signed_in.token, signed_in.longest),
    ];
    Ok(see_other(&signed_in.return_to, cookies))
}

/// Begins a sign-in on a machine without a browser.
#[utoipa::path(post, path = "/v1/sign-in/device", request_body = Option<NewDeviceSignIn>, responses((status = 200, body = DeviceSignIn)))]
pub(super) async fn device(request: OpenRequest) -> Result<HttpResponse, ApiError> {
    attempt(&request)?;
    let mut fields = request.fields()?;
    let provider: Option<String> = fields.optional("provider");
    let new = fields.finish(|| Some(NewDeviceSignIn { provider }))?;
    let begun = app::device_begin(&request.app, new.provider.as_deref()).await?;
    Ok(HttpResponse::Ok().json(begun))
}

/// Asks how such a sign-in goes, and gives the session's token once it has ended.
#[utoipa::path(post, path = "/v1/sign-in/device/token", request_body = DeviceQuestion, responses((status = 200, body = DeviceAnswer)))]
pub(super) async fn device_token(request: OpenRequest) -> Result<HttpResponse, ApiError> {
    let mut fields = request.fields()?;
    let device: Option<String> = fields.required("device");
    // Whoever asks often enough with what was given out is told to slow down; guesses are attempts.
    if !device.as_deref().is_some_and(|device| is_whole(TokenKind::SignIn, device)) {
        attempt(&request)?;
    }
    let device = fields.finish(|| device)?;
    match app::device_ask(&request.app, &device, request.trace()).await {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(error) => {
            let error = ApiError::from(error);
            if error.problem.code == Code::SignInRefused {
                attempt(&request)?;
            }
            Err(error)
        }
    }
}

/// Ends the caller's session, or the time of its access token.
#[utoipa::path(post, path = "/v1/sign-out", responses((status = 204)))]
pub(super) async fn sign_out(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let presented = request.http.extensions().get::<Presented>().cloned().unwrap_or(Presented::Other);
    app::sign_out(&request.app, &request.caller, presented).await?;
    let mut response = HttpResponse::NoContent();
    if Kind::Session.read(&request.app, &request.http).is_some() {
        response.cookie(Kind::Session.clear(&request.app));
    }
    Ok(response.finish())
}
