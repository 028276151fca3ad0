//! HIL's REST API, as far as it is needed: showing a node, attaching and detaching a NIC, and how an action stands.
//!
//! Deliberately absent: deciding. Answers are told apart by their status and by HIL's own words (`type`, `msg`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use bmi_types::Secret;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{HilError, HilSettings};

/// The largest answer in bytes: a node with a few NICs.
const ANSWER_MAX: usize = 1 << 20;
/// The longest text of HIL that is repeated, in characters.
const SAID_MAX: usize = 300;

/// What is wrong with an address of HIL's API, as the end of a sentence: the password goes there.
///
/// # Errors
/// When it is none, would show the password to others, or holds one.
pub fn hil_url_check(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let here = match url.host_str() {
        Some(host) => matches!(host, "localhost" | "[::1]") || host.starts_with("127."),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && here) {
        return Err("must be https, since the password would travel in clear".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the path".to_owned());
    }
    Ok(())
}

pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    user: String,
    password: Secret,
}

/// A node, as HIL shows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ShownNode {
    /// Nothing when it is free.
    pub(super) project: Option<String>,
    pub(super) nics: Vec<ShownNic>,
}

/// A NIC, as HIL shows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ShownNic {
    pub(super) label: String,
    pub(super) macaddr: String,
    /// Which network is on which channel.
    #[serde(default)]
    pub(super) networks: BTreeMap<String, String>,
}

/// What is asked of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Connect { network: &'a str, channel: &'a str },
    Detach { network: &'a str },
}

/// What HIL answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// It will do it; the number under which to ask, where this version gives one.
    Queued(Option<String>),
    /// Not now, and why: mostly since something is under way on the NIC.
    NotNow(String),
    /// The NIC is not on that network, and nothing is under way there.
    NotAttached,
}

/// How an action stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Pending,
    Done,
    /// It ended otherwise; HIL's word for it.
    Failed(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    msg: String,
}

impl Client {
    pub(super) fn new(settings: &HilSettings) -> Result<Self, HilError> {
        // A redirect could lead the password anywhere; a proxy of the environment is nobody's decision.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(settings.request_timeout);
        if let Some(path) = &settings.ca_file {
            let pem =
                std::fs::read(path).map_err(|source| HilError::Read { path: PathBuf::from(path), source })?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(HilError::Client)?;
            builder = builder.tls_certs_only(authorities);
        }
        let base = Url::parse(&settings.url).ok().filter(|url| !url.cannot_be_a_base());
        Ok(Self {
            http: builder.build().map_err(HilError::Client)?,
            base: base.ok_or_else(|| HilError::Url(settings.url.clone()))?,
            user: settings.user.clone(),
            password: settings.password.clone(),
        })
    }

    pub(super) async fn node(&self, node: &str) -> Result<ShownNode, HilError> {
        let doing = || format!("showing node `{node}`");
        let (status, body) = self.ask(Method::GET, &["node", node], None, &doing).await?;
        if status != StatusCode::OK {
            return Err(refused(doing(), status, &body));
        }
        serde_json::from_slice(&body).map_err(|source| HilError::Unreadable { doing: doing(), source })
    }

    pub(super) async fn change(&self, node: &str, nic: &str, change: Change<'_>) -> Result<Asked, HilError> {
        let (verb, body) = match change {
            Change::Connect { network, channel } => {
                ("connect_network", json!({"network": network, "channel": channel}))
            }
            Change::Detach { network } => ("detach_network", json!({"network": network})),
        };
        let doing = || format!("{verb} of NIC `{nic}` of node `{node}`");
        let path = ["node", node, "nic", nic, verb];
        let (status, answer) = self.ask(Method::POST, &path, Some(&body), &doing).await?;
        let said = said(&answer);
        match status {
            StatusCode::ACCEPTED | StatusCode::OK => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                let number = answer.get("status_id").and_then(Value::as_str);
                Ok(Asked::Queued(number.map(str::to_owned)))
            }
            // Its documentation says 409, its code 400.
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT
                if matches!(change, Change::Detach { .. })
                    && said.kind == "BadArgumentError"
                    && said.msg.contains("not attached") =>
            {
                Ok(Asked::NotAttached)
            }
            StatusCode::CONFLICT if said.kind != "ProjectMismatchError" => {
                Ok(Asked::NotNow(short(&said.msg)))
            }
            status => Err(refused(doing(), status, &answer)),
        }
    }

    pub(super) async fn action(&self, number: &str) -> Result<Action, HilError> {
        let doing = || format!("asking for networking action `{number}`");
        let (status, body) = self.ask(Method::GET, &["networking_action", number], None, &doing).await?;
        if status != StatusCode::OK {
            return Err(refused(doing(), status, &body));
        }
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|source| HilError::Unreadable { doing: doing(), source })?;
        Ok(match answer.get("status").and_then(Value::as_str).unwrap_or("without a status") {
            "PENDING" => Action::Pending,
            "DONE" => Action::Done,
            other => Action::Failed(short(other)),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        doing: &(dyn Fn() -> String + Sync),
    ) -> Result<(StatusCode, Vec<u8>), HilError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let unanswered = |source: reqwest::Error| HilError::Unanswered {
            doing: doing(),
            // The address is in the configuration, and long.
            source: source.without_url(),
        };
        let mut request = self.http.request(method, url).basic_auth(&self.user, Some(self.password.expose()));
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(unanswered)?;
        let (status, mut text) = (answer.status(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(unanswered)? {
            if text.len() + chunk.len() > ANSWER_MAX {
                return Err(HilError::TooLong { doing: doing() });
            }
            text.extend_from_slice(&chunk);
        }
        Ok((status, text))
    }
}

fn said(answer: &[u8]) -> Said {
    serde_json::from_slice(answer).unwrap_or_default()
}

fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SAID_MAX).collect()
}

fn refused(doing: String, status: StatusCode, answer: &[u8]) -> HilError {
    let Said { kind, msg } = said(answer);
    let said = if kind.is_empty() { String::new() } else { short(&format!(": {kind}: {msg}")) };
    HilError::Refused { doing, status: status.as_u16(), said }
}
