//! Requests to the control plane, their answers and problems.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bmi_api::{Code, Page, Problem};
use bmi_types::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Items asked for at once when a whole list is read.
const PAGE: u32 = 500;

/// A client of one control plane.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<Token>,
}

/// What proves who calls.
#[derive(Clone)]
struct Token {
    text: Secret,
    /// Whether `bmi login` began it, and not a file that was named.
    of_session: bool,
}

impl Client {
    /// A client of a server, with the token of a file, or of the session that `bmi login` began there. Its
    /// certificate must come from the authorities of `ca_file`, or from the system's.
    pub(crate) fn new(
        server: &str,
        token_file: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        if !server.starts_with("http://") && !server.starts_with("https://") {
            let text = format!("--server must be an http:// or https:// URL, not `{server}`");
            return Err(Failure::Usage(text));
        }
        let server = server.trim_end_matches('/').to_owned();
        let mut http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        if let Some(path) = ca_file {
            let fail = |what: String| Failure::Usage(format!("CA file {}: {what}", path.display()));
            let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.to_string()))?;
            if authorities.is_empty() {
                return Err(fail("it has no certificate".to_owned()));
            }
            http = http.tls_certs_only(authorities);
        }
        let http = http.build().map_err(|error| Failure::Usage(error.to_string()))?;
        let token = match token_file {
            Some(path) => Some(Token { text: read_token(path)?, of_session: false }),
            // Where no home says where sessions are, there is none.
            None => match crate::sessions::path(&server).ok().filter(|path| path.exists()) {
                Some(path) => Some(Token { text: read_token(&path)?, of_session: true }),
                None => None,
            },
        };
        Ok(Self { http, server, token })
    }

    /// The server's URL.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The same without a token.
    pub(crate) fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same with another token.
    pub(crate) fn with_token(&self, token: &Secret) -> Self {
        Self { token: Some(Token { text: token.clone(), of_session: true }), ..self.clone() }
    }

    /// Whether there is a token.
    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether `bmi login` began it.
    pub(crate) fn token_is_of_session(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.of_session)
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token.text.expose()),
            None => request,
        }
    }

    /// Sends a request and turns a problem into a failure.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| foreign(status));
        Err(Failure::Refused(Box::new(problem)))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        Failure::Unreachable { server: self.server.clone(), reason }
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send(request).await?;
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("the server's answer cannot be read: {error}")))
    }

    /// GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.request(Method::GET, path)).await
    }

    /// A path with a query.
    pub(crate) fn path_with(&self, path: &str, query: &[(&str, String)]) -> Result<String, Failure> {
        let whole = reqwest::Url::parse_with_params(&format!("{}{path}", self.server), query);
        let whole = whole.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(match whole.query() {
            Some(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        })
    }

    /// GET with a query.
    pub(crate) async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.get(&self.path_with(path, query)?).await
    }

    /// GET of every page of a list.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page: Page<T> = self.get(&format!("{path}{separator}limit={PAGE}{cursor}")).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// POST. The key makes a repeat after a broken connection harmless.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let key = uuid::Uuid::new_v4().to_string();
        self.read(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    /// PATCH, at a version when given.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        version: Option<i64>,
    ) -> Result<T, Failure> {
        self.read(at_version(self.request(Method::PATCH, path).json(body), version)).await
    }

    /// DELETE of something that goes at once.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path)).await.map(|_| ())
    }

    /// DELETE that answers an operation.
    pub(crate) async fn delete_later<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.read(self.request(Method::DELETE, path)).await
    }
}

fn at_version(request: RequestBuilder, version: Option<i64>) -> RequestBuilder {
    match version {
        Some(version) => request.header("If-Match", format!("\"{version}\"")),
        None => request,
    }
}

/// What an answer without a problem document means: something else answers there.
fn foreign(status: StatusCode) -> Problem {
    let code = if status.is_server_error() { Code::Unavailable } else { Code::BadRequest };
    let mut problem = Problem::new(code, format!("the server answered {status}, and not as BMI does"));
    problem.status = status.as_u16();
    problem
}

fn read_token(path: &Path) -> Result<Secret, Failure> {
    let fail = |what: String| Failure::Usage(format!("token file {}: {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(fail(format!("others can read it (mode {:03o}); chmod 600 it", metadata.mode() & 0o777)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let token = text.trim().to_owned();
    if token.is_empty() { Err(fail("it is empty".to_owned())) } else { Ok(Secret::new(token)) }
}

/// A part of a path: names and ids need no escaping, and anything else leads nowhere.
pub(crate) fn part(text: &str) -> Result<&str, Failure> {
    let plain =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain { Ok(text) } else { Err(Failure::usage(format!("`{text}` is neither a name nor an id"))) }
}
