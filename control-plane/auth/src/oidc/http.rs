//! Requests to a provider: no redirects, bounded in time and size.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use openidconnect::http::{HeaderMap, Method, Request, Response, StatusCode};
use reqwest::redirect::Policy;

use super::settings::ProviderSettings;

/// How long a request may take, its answer included: a caller waits for it.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The largest answer in bytes: key sets with certificate chains are the largest.
const ANSWER_MAX: usize = 512 * 1024;

/// Why a provider's client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file with its authorities.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content, or the system's authorities.
    #[error("the certificates of provider `{provider}` cannot be used")]
    Certificates {
        /// Of which provider.
        provider: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Its secret.
    #[error("the client secret of provider `{provider}` cannot be used")]
    Secret {
        /// Of which provider.
        provider: String,
        /// Why.
        #[source]
        source: crate::SecretFileError,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// It could not be sent, or the answer was not all there.
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    /// The answer is too long.
    #[error("the answer has more than {ANSWER_MAX} bytes")]
    TooLong,
    /// The answer cannot be read as one.
    #[error("the answer is not HTTP")]
    Answer(#[from] openidconnect::http::Error),
}

/// A client for one provider.
#[derive(Debug, Clone)]
pub(super) struct Http(reqwest::Client);

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(settings: &ProviderSettings) -> Result<Self, ClientError> {
        let certificates = |source| ClientError::Certificates { provider: settings.name.to_string(), source };
        // A redirect could lead this server anywhere; a proxy of the environment is nobody's decision.
        let mut builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(REQUEST_MAX)
            .connect_timeout(CONNECT_MAX);
        if let Some(path) = &settings.ca_file {
            let pem =
                std::fs::read(path).map_err(|source| ClientError::Read { path: path.clone(), source })?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(certificates)?;
            builder = builder.tls_certs_only(authorities);
        }
        builder.build().map(Self).map_err(certificates)
    }

    async fn run(&self, request: reqwest::RequestBuilder) -> Result<Answer, HttpError> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(HttpError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// GET, with an access token where one is given.
    pub(super) async fn get(&self, url: &str, token: Option<&str>) -> Result<Answer, HttpError> {
        let mut request = self.0.get(url).header("Accept", "application/json");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.run(request).await
    }

    /// For openidconnect: one request and its answer.
    pub(super) async fn call(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        let (parts, body) = request.into_parts();
        let method = if parts.method == Method::GET { Method::GET } else { Method::POST };
        let request = self.0.request(method, parts.uri.to_string()).headers(parts.headers).body(body);
        let answer = self.run(request).await?;
        let mut response = Response::builder().status(answer.status).body(answer.body)?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    /// POST of a form, with the client's name and secret as its Basic authentication.
    pub(super) async fn form(
        &self,
        url: &str,
        basic: Option<(&str, &str)>,
        fields: &[(&str, &str)],
    ) -> Result<Answer, HttpError> {
        let mut request = self.0.post(url).header("Accept", "application/json").form(fields);
        if let Some((user, password)) = basic {
            request = request.basic_auth(user, Some(password));
        }
        self.run(request).await
    }
}
