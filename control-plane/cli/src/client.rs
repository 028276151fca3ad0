//! Requests to the control plane, their answers and problems.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bmi_api::{Code, Page, Problem};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Items asked for at once when a whole list is read.
const PAGE: u32 = 500;

/// A client of one control plane.
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    /// A client of a server, with the token of a file.
    pub(crate) fn new(server: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        if !server.starts_with("http://") {
            let text =
                format!("--server must be an http:// URL (https is not supported yet), not `{server}`");
            return Err(Failure::Usage(text));
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let token = token_file.map(read_token).transpose()?;
        Ok(Self { http, server: server.trim_end_matches('/').to_owned(), token })
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
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

fn read_token(path: &Path) -> Result<String, Failure> {
    let fail = |what: String| Failure::Usage(format!("token file {}: {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(fail(format!("others can read it (mode {:03o}); chmod 600 it", metadata.mode() & 0o777)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let token = text.trim().to_owned();
    if token.is_empty() { Err(fail("it is empty".to_owned())) } else { Ok(token) }
}

/// A part of a path: names and ids need no escaping, and anything else leads nowhere.
pub(crate) fn part(text: &str) -> Result<&str, Failure> {
    let plain =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain { Ok(text) } else { Err(Failure::usage(format!("`{text}` is neither a name nor an id"))) }
}
