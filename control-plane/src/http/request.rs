//! A request, as handlers see it: the application, the caller, the headers that matter, and a bounded body.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderName};
use actix_web::{FromRequest, HttpMessage, HttpRequest, dev, web};
use bmi_api::Code;
use bmi_auth::{Caller, Trace};
use bytes::BytesMut;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tokio::time::{Instant, timeout_at};

use super::answer::ApiError;
use super::fields::Fields;
use crate::app::App;

/// The largest body, uploads apart.
const BODY_MAX: usize = 1024 * 1024;
/// The largest body of whoever has not proved who it is.
const OPEN_BODY_MAX: usize = 4096;
/// How long a body may take: who sends one byte a minute must not hold a connection for ever.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// The most digits of a version in `If-Match`: what fits into 64 bits with a sign.
const VERSION_DIGITS_MAX: usize = 18;

/// A request.
pub(super) struct Request {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) http: HttpRequest,
    pub(super) body: bytes::Bytes,
    /// The version named by `If-Match`.
    pub(super) if_match: Option<i64>,
}

impl Request {
    /// A part of the path.
    pub(super) fn path(&self, name: &str) -> String {
        self.http.match_info().get(name).unwrap_or_default().to_owned()
    }

    /// A header, when it is there and readable.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.http.headers().get(name)?.to_str().ok()
    }

    /// The body's fields.
    pub(super) fn fields(&self) -> Result<Fields, ApiError> {
        Fields::read(&self.body)
    }

    /// The fields of a body that must be there: a change that names nothing to change is a mistake.
    pub(super) fn sent_fields(&self) -> Result<Fields, ApiError> {
        if self.body.is_empty() {
            return Err(ApiError::new(Code::NotJson, "send a JSON object with the fields to change"));
        }
        self.fields()
    }

    /// Refuses a body where none is expected.
    pub(super) fn no_fields(&self) -> Result<(), ApiError> {
        if self.body.is_empty() { Ok(()) } else { self.fields()?.finish(|| Some(())) }
    }
}

/// A request of nobody yet: of a route that is open without a token.
pub(super) struct OpenRequest {
    pub(super) app: Arc<App>,
    pub(super) http: HttpRequest,
    body: bytes::Bytes,
}

impl OpenRequest {
    /// The body's fields.
    pub(super) fn fields(&self) -> Result<Fields, ApiError> {
        Fields::read(&self.body)
    }

    /// What is known of the request.
    pub(super) fn trace(&self) -> Trace {
        self.http.extensions().get::<Trace>().cloned().unwrap_or_default()
    }
}

impl FromRequest for OpenRequest {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(http: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let payload = web::Payload::from_request(http, payload).into_inner();
        let http = http.clone();
        Box::pin(async move {
            let app = http.app_data::<web::Data<App>>().map(|data| Arc::clone(data));
            let app = app.ok_or_else(|| ApiError::new(Code::Internal, "the server failed"))?;
            let payload = payload.map_err(|_| ApiError::new(Code::BadRequest, "the body cannot be read"))?;
            let body = read_body(&http, payload, OPEN_BODY_MAX).await?;
            Ok(Self { app, http, body })
        })
    }
}

/// Reads `If-Match`: one version in quotes, or `*`. Without the quotes it is understood as well.
fn if_match(http: &HttpRequest) -> Result<Option<i64>, ApiError> {
    let Some(value) = http.headers().get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text == "*" {
        return Ok(None);
    }
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let digits = bare.len() <= VERSION_DIGITS_MAX && bare.bytes().all(|byte| byte.is_ascii_digit());
    let version = digits.then(|| bare.parse().ok()).flatten();
    let wrong = || ApiError::new(Code::BadRequest, "If-Match must be one ETag such as \"3\"");
    version.map(Some).ok_or_else(wrong)
}

/// Reads a body of at most `most` bytes.
async fn read_body(
    http: &HttpRequest,
    mut payload: web::Payload,
    most: usize,
) -> Result<bytes::Bytes, ApiError> {
    let too_large = || ApiError::new(Code::TooLarge, format!("a body has at most {most} bytes"));
    let announced =
        http.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > most) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    let until = Instant::now() + BODY_TIME_MAX;
    let late = |_| ApiError::new(Code::BadRequest, "the body took too long");
    while let Some(chunk) = timeout_at(until, payload.next()).await.map_err(late)? {
        let chunk = chunk.map_err(|_| ApiError::new(Code::BadRequest, "the body ended early"))?;
        if body.len() + chunk.len() > most {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    if !body.is_empty()
        && http.mime_type().ok().flatten().is_none_or(|kind| kind.essence_str() != "application/json")
    {
        return Err(ApiError::new(
            Code::UnsupportedMediaType,
            "a body must have Content-Type: application/json",
        ));
    }
    Ok(body.freeze())
}

/// The application and the caller of a request.
pub(super) fn principal(http: &HttpRequest) -> Result<(Arc<App>, Caller), ApiError> {
    let app = http.app_data::<web::Data<App>>().map(|data| Arc::clone(data));
    let caller = http.extensions().get::<Caller>().cloned();
    app.zip(caller).ok_or_else(|| ApiError::new(Code::Unauthenticated, "a valid token is needed"))
}

impl FromRequest for Request {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(http: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let payload = web::Payload::from_request(http, payload).into_inner();
        let http = http.clone();
        Box::pin(async move {
            let (app, caller) = principal(&http)?;
            let payload = payload.map_err(|_| ApiError::new(Code::BadRequest, "the body cannot be read"))?;
            let body = read_body(&http, payload, BODY_MAX).await?;
            let if_match = if_match(&http)?;
            Ok(Self { app, caller, http, body, if_match })
        })
    }
}
