//! What every request of the REST API goes through: a request id, a log line, and the question who is calling.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, web};
use bmi_api::Code;
use bmi_auth::{Caller, Trace};
use tracing::Instrument;

use super::answer::ApiError;
use crate::app::App;

/// Routes that answer without a token.
pub(super) const OPEN: &[&str] = &["/healthz", "/readyz"];

fn caller(request: &ServiceRequest) -> Option<Caller> {
    let app = request.app_data::<web::Data<App>>()?;
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| app.local_admin.authenticate(token.trim())).flatten()
}

/// The middleware.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = uuid::Uuid::now_v7().to_string();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let begun = std::time::Instant::now();
    let span = tracing::info_span!("request", request.id = %id);
    async move {
        let open = OPEN.contains(&request.path());
        let caller = caller(&request);
        let allowed = open || caller.is_some();
        if let Some(mut caller) = caller {
            caller.trace = Trace::of(id.clone());
            request.extensions_mut().insert(caller);
        }
        let response = if allowed {
            next.call(request).await.map(ServiceResponse::map_into_boxed_body)
        } else {
            let error = ApiError::new(
                Code::Unauthenticated,
                "send `Authorization: Bearer <token>` with a valid token",
            );
            Ok(request.error_response(error))
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
        let route = response.request().match_pattern();
        if let Some(app) = response.request().app_data::<web::Data<App>>() {
            app.metrics.request(method.as_str(), route, response.status().as_u16(), taken);
        }
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(HeaderName::from_static("x-request-id"), value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        tracing::info!(
            http.method = %method,
            http.path = path,
            http.status = response.status().as_u16(),
            duration_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        Ok(response)
    }
    .instrument(span)
    .await
}
