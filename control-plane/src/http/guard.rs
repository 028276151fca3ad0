//! What every request of the REST API goes through: a request id, a log line, and the question who is calling.

use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, web};
use bmi_api::Code;
use bmi_auth::{Caller, Trace};
use futures::StreamExt;
use tracing::Instrument;

use super::answer::ApiError;
use super::cookie::{self, Kind};
use crate::app::App;
use crate::app::authentication::{Credential, Presented, authenticate, unproven};

/// Routes that answer without a token.
pub(super) const OPEN: &[&str] = &[
    "/healthz",
    "/readyz",
    "/v1/sign-in",
    "/v1/sign-in/{provider}/start",
    "/v1/sign-in/callback",
    "/v1/sign-in/device",
    "/v1/sign-in/device/token",
];

/// Routes that are not counted.
const HEALTH: &[&str] = &["/healthz", "/readyz"];

/// The longest path, in bytes: the longest name thrice, every byte of it encoded, and some words. Every route is compared
/// with the path, also for callers whom nobody knows.
const PATH_MAX: usize = 1024;

/// How much of the body of a refused request is read, and how long.
const DRAINED_MAX: usize = 64 << 10;
const DRAINED_WITHIN: Duration = Duration::from_secs(1);

/// Finds out who calls. A header is all that counts when there is one; a cookie comes with whatever a browser sends,
/// so a change by it must come from a page of this server.
pub(super) async fn identify(app: &App, request: &HttpRequest) -> Result<(Caller, Presented), ApiError> {
    let mut authorizations = request.headers().get_all(header::AUTHORIZATION);
    if let Some(value) = authorizations.next() {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return match (bearer, authorizations.next()) {
            (Some((_, token)), None) => Ok(authenticate(app, Credential::Bearer(token.trim())).await?),
            _ => Err(unproven().into()),
        };
    }
    let token = Kind::Session.read(app, request).ok_or_else(unproven)?;
    let proven = authenticate(app, Credential::Cookie(&token)).await?;
    if !request.method().is_safe() && !cookie::is_same_origin(app, request.headers()) {
        return Err(ApiError::new(Code::Forbidden, "a page of another site sent this request"));
    }
    Ok(proven)
}

/// Lets a request in: not too many of an address, a caller where one is needed, and not too many of that.
async fn admit(request: &ServiceRequest, id: &str) -> Result<(), ApiError> {
    let too_many = |wait| ApiError::too_many(wait, "too many requests; try again later");
    let route = request.match_pattern();
    // Whoever looks after the server asks often.
    if route.as_deref().is_some_and(|route| HEALTH.contains(&route)) {
        return Ok(());
    }
    let app = request.app_data::<web::Data<App>>().ok_or_else(unproven)?;
    if let Some(peer) = request.peer_addr() {
        app.rate_limit.address(peer.ip()).map_err(too_many)?;
    }
    if route.is_some_and(|route| OPEN.contains(&route.as_str())) {
        return Ok(());
    }
    let (mut caller, presented) = identify(app, request.request()).await?;
    app.rate_limit.caller(caller.subject.as_str()).map_err(too_many)?;
    caller.trace = Trace::of(id.to_owned());
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(presented);
    Ok(())
}

/// Reads what is left of a small body: a client that is answered before it has sent all takes HTTP/2's end of the stream
/// for a failure, and never sees why it was refused.
async fn drain(request: &mut ServiceRequest) {
    let mut payload = request.take_payload();
    let mut left = DRAINED_MAX;
    let rest = async {
        while let Some(Ok(chunk)) = payload.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(DRAINED_WITHIN, rest).await.ok();
}

/// What browsers are told of every answer: nothing of it is a page, and no other site has it.
const SECURITY_HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];
/// For a year, only by TLS (RFC 6797).
const STRICT: &str = "max-age=31536000";

/// The middleware.
pub(super) async fn guard(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = uuid::Uuid::now_v7().to_string();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let begun = std::time::Instant::now();
    let span = tracing::info_span!("request", request.id = %id);
    async move {
        request.extensions_mut().insert(Trace::of(id.clone()));
        let long = path.len() > PATH_MAX;
        let secure = request.app_config().secure();
        let admitted = if long {
            Err(ApiError::new(Code::BadRequest, format!("a path has at most {PATH_MAX} bytes")))
        } else {
            admit(&request, &id).await
        };
        let response = match admitted {
            Ok(()) => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
            Err(error) => {
                drain(&mut request).await;
                Ok(request.error_response(error))
            }
        };
        let mut response = match response {
            Ok(response) => response,
            Err(error) => return Err(error),
        };
        if let Some(error) = response.response().error().and_then(actix_web::Error::as_error::<ApiError>) {
            // The problem was written before it could know its request.
            let mut problem = (*error.problem).clone();
            problem.request_id.clone_from(&id);
            let body = serde_json::to_string(&problem).unwrap_or_default();
            response = response.map_body(|_, _| BoxBody::new(body));
        }
        let taken = begun.elapsed();
        let route = if long { None } else { response.request().match_pattern() };
        if let Some(app) = response.request().app_data::<web::Data<App>>() {
            app.metrics.request(method.as_str(), route, response.status().as_u16(), taken);
        }
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(HeaderName::from_static("x-request-id"), value);
        }
        for (name, value) in SECURITY_HEADERS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if secure {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(STRICT));
        }
        tracing::info!(
            http.method = %method,
            http.path = path.chars().take(PATH_MAX).collect::<String>(),
            http.status = response.status().as_u16(),
            duration_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        Ok(response)
    }
    .instrument(span)
    .await
}
