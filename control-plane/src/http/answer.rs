//! Answers: a status, headers and a JSON body, kept in a form that can be stored and given again.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError};
use bmi_api::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::AppError;

/// Media type of errors (RFC 9457).
pub(super) const PROBLEM: &str = "application/problem+json";

/// How long somebody is to wait who was refused too often, in seconds.
const REFUSED_WAIT_S: u16 = 60;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    body: Option<Value>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    etag: Option<i64>,
    /// Whether it has a secret: then it is kept sealed.
    #[serde(default)]
    pub(super) secret: bool,
}

/// What a handler answers.
pub(super) type Outcome = Result<Answer, ApiError>;

impl Answer {
    fn with(status: StatusCode, body: impl Serialize) -> Outcome {
        let body = serde_json::to_value(body)
            .map_err(|error| AppError::Defect(format!("an answer cannot be written: {error}")))?;
        Ok(Self { status: status.as_u16(), body: Some(body), location: None, etag: None, secret: false })
    }

    /// 200.
    pub(super) fn ok(body: impl Serialize) -> Outcome {
        Self::with(StatusCode::OK, body)
    }

    /// 200 with the version as `ETag`.
    pub(super) fn versioned(body: impl Serialize, version: i64) -> Outcome {
        Ok(Self { etag: Some(version), ..Self::with(StatusCode::OK, body)? })
    }

    /// 201 with the place of what was created.
    pub(super) fn created(body: impl Serialize, location: String, version: i64) -> Outcome {
        Ok(Self { location: Some(location), etag: Some(version), ..Self::with(StatusCode::CREATED, body)? })
    }

    /// 202 with the operation.
    pub(super) fn accepted(operation: &bmi_api::Operation) -> Outcome {
        let location = format!("/v1/operations/{}", operation.id);
        Ok(Self { location: Some(location), ..Self::with(StatusCode::ACCEPTED, operation)? })
    }

    /// 204.
    pub(super) const fn nothing() -> Outcome {
        Ok(Self { status: 204, body: None, location: None, etag: None, secret: false })
    }

    /// The same, with a secret in it.
    #[must_use]
    pub(super) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The HTTP response.
    pub(super) fn respond(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponseBuilder::new(status);
        if let Some(location) = &self.location {
            response.insert_header((header::LOCATION, location.as_str()));
        }
        if let Some(version) = self.etag {
            response.insert_header((header::ETAG, format!("\"{version}\"")));
        }
        match &self.body {
            Some(body) => response.json(body),
            None => response.finish(),
        }
    }
}

/// An error, on its way to the caller.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) problem: Box<Problem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// One request too many.
    pub(super) fn too_many(wait: Duration, detail: &str) -> Self {
        let seconds = HeaderValue::from(wait.as_secs() + 1);
        Self::new(Code::TooManyRequests, detail).with_header(header::RETRY_AFTER, seconds)
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        let mut headers = Vec::new();
        if problem.code == Code::Unauthenticated {
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if problem.code == Code::TokenExpired {
            // RFC 6750 section 3.1.
            let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.push((header::WWW_AUTHENTICATE, value));
        }
        if matches!(problem.code, Code::Unavailable | Code::RequestInProgress) {
            headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        Self { problem: Box::new(problem), headers }
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        let problem = error.into_problem();
        if problem.code == Code::TooManyRequests {
            return Self::from(problem).with_header(header::RETRY_AFTER, HeaderValue::from(REFUSED_WAIT_S));
        }
        problem.into()
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.problem.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        for header in &self.headers {
            response.append_header(header.clone());
        }
        let body = serde_json::to_string(&self.problem).unwrap_or_default();
        response.content_type(PROBLEM).body(body)
    }
}

/// The answer to a path that does not exist: the same as for an absent resource.
pub(super) async fn no_such_route() -> Result<HttpResponse, ApiError> {
    Err(AppError::not_found().into())
}

/// The answer to a method that a path does not take.
pub(super) async fn no_such_method(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let methods = super::openapi::methods(request.match_pattern().as_deref());
    let error = ApiError::new(Code::MethodNotAllowed, format!("this path takes {methods}"));
    // RFC 9110 section 15.5.6.
    Err(match HeaderValue::from_str(&methods) {
        Ok(methods) => error.with_header(header::ALLOW, methods),
        Err(_) => error,
    })
}
