//! Joining a network and renewing the certificate: what is asked of the control plane, and what is kept of the answer.
//!
//! The control plane is known by its authority. Whoever joins has only the hash of that, from the token: it asks for the
//! authorities without believing the connection, takes the one with that hash, and sends the token to nobody whom that
//! one has not certified.
//!
//! Invariants: a key never leaves this host, and is on the disk before it is used; a renewal makes a new one.

use std::time::Duration;

use bmi_agent_api::enrol::{
    AGENT_REFUSED, AGENT_REPLACED, Authorities, EnrolRequest, Identity, JOIN_TOKEN_REFUSED, JoinToken,
    Pending, Problem, RenewRequest, StandingRequest,
};
use bmi_types::{AgentId, Name, Secret, Timestamp};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use x509_parser::pem::parse_x509_pem;

use crate::identity::{Joining, Kept};
use crate::trouble::{clock_off, explain, is_about_time, right_time};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer: an identity has a few certificates.
const ANSWER_MAX: usize = 256 << 10;

/// Why an agent did not join, or did not renew.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No answer, or none that can be read.
    #[error("asking the control plane: {}", explain(.0))]
    Request(reqwest::Error),
    /// The same, and the clock is why.
    #[error("{0}")]
    Clock(String),
    /// Another authority than the token's.
    #[error(
        "the control plane has no authority with the hash that the token names: it is another control plane, somebody is \
         in between, or that authority was retired since the token was made"
    )]
    Authority,
    /// The control plane's answer is not one.
    #[error("the control plane's answer cannot be read")]
    Answer(#[from] serde_json::Error),
    /// It is too long.
    #[error("the control plane's answer is longer than {ANSWER_MAX} bytes")]
    Large,
    /// The token is not good.
    #[error("the join token is refused: {0}")]
    Token(String),
    /// The agent may not speak.
    #[error("the control plane refuses this agent: {0}")]
    Refused(String),
    /// Another refusal.
    #[error("the control plane answers {status}: {detail}")]
    Status {
        /// The status.
        status: StatusCode,
        /// Why.
        detail: String,
    },
    /// A key or a request for a certificate.
    #[error("making a key")]
    Key(#[from] rcgen::Error),
}

impl From<reqwest::Error> for EnrolError {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error)
    }
}

impl EnrolError {
    /// Whether asking again is of use.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        !matches!(self, Self::Token(_))
    }
}

/// What came of an attempt to join.
#[derive(Debug)]
pub enum Joined {
    /// This agent has.
    Now(Box<Kept>),
    /// The key waits for approval, as that agent's.
    Later(AgentId),
}

/// A client, with what holds for all of them.
pub fn client_builder(timeout: Duration) -> ClientBuilder {
    Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none()).no_proxy()
}

/// A client that knows the control plane by some authorities, and nobody else's.
///
/// # Errors
/// When they are none.
pub fn client_trusting(builder: ClientBuilder, authorities: &[String]) -> reqwest::Result<ClientBuilder> {
    let roots = authorities.iter().map(|pem| Certificate::from_pem(pem.as_bytes()));
    Ok(builder.tls_certs_only(roots.collect::<reqwest::Result<Vec<_>>>()?).https_only(true))
}

/// A client that proves who this agent is.
///
/// # Errors
/// When key or certificate are none.
pub fn client_of(kept: &Kept, builder: ClientBuilder) -> reqwest::Result<Client> {
    let pem = Secret::new(format!("{}\n{}", kept.certificate, kept.key.expose()));
    let identity = reqwest::Identity::from_pem(pem.expose().as_bytes())?;
    client_trusting(builder, &kept.authorities)?.identity(identity).build()
}

/// Makes a key; gives it in PEM.
///
/// # Errors
/// When there is no randomness.
pub fn key_make() -> Result<Secret, EnrolError> {
    Ok(Secret::new(KeyPair::generate()?.serialize_pem()))
}

/// A request for a certificate, which asks for nothing: everything but the key is the control plane's to choose.
fn request_of(key: &Secret) -> Result<String, EnrolError> {
    let key = KeyPair::from_pem(key.expose())?;
    Ok(CertificateParams::default().serialize_request(&key)?.pem()?)
}

/// The hash of a key's public half, by which the control plane knows it.
///
/// # Errors
/// When it is no key.
pub fn own_key_sha256(key: &Secret) -> Result<String, EnrolError> {
    let key = KeyPair::from_pem(key.expose())?;
    Ok(hexadecimal(&Sha256::digest(key.subject_public_key_info())))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the public key of a certificate in PEM.
fn key_sha256(pem: &str) -> Option<String> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(hexadecimal(&Sha256::digest(certificate.tbs_certificate.subject_pki.raw)))
}

async fn read<T: DeserializeOwned>(mut answer: Response) -> Result<T, EnrolError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(EnrolError::Large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Why a request was refused.
async fn refusal(answer: Response) -> EnrolError {
    let status = answer.status();
    let none = Problem { code: String::new(), detail: "it does not say why".to_owned() };
    let problem = read::<Problem>(answer).await.unwrap_or(none);
    match problem.code.as_str() {
        JOIN_TOKEN_REFUSED => EnrolError::Token(problem.detail),
        AGENT_REFUSED | AGENT_REPLACED => EnrolError::Refused(problem.detail),
        _ => EnrolError::Status { status, detail: problem.detail },
    }
}

/// The time at the control plane, as it says itself.
pub fn time_there(answer: &Response) -> Option<Timestamp> {
    Timestamp::of_http_date(answer.headers().get(reqwest::header::DATE)?.to_str().ok()?)
}

/// Asks without believing the connection: for what is checked otherwise, or only a hint.
async fn ask_unproven(server: &str) -> Result<Response, EnrolError> {
    let client = client_builder(TIMEOUT).tls_danger_accept_invalid_certs(true).https_only(true).build()?;
    Ok(client.get(format!("{server}/agent/v1/authorities")).send().await?)
}

/// The authority that a token names.
async fn authority(server: &str, token: &JoinToken) -> Result<String, EnrolError> {
    let answer = ask_unproven(server).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer).await);
    }
    let told: Authorities = read(answer).await?;
    let named = |pem: &String| key_sha256(pem).as_ref() == Some(&token.authority_sha256);
    told.authorities.into_iter().find(named).ok_or(EnrolError::Authority)
}

/// The time at the control plane, as anybody may say it: no more than a hint.
pub async fn time_hint(server: &str) -> Option<Timestamp> {
    ask_unproven(server).await.ok().as_ref().and_then(time_there)
}

/// An error of a request; when it may come from the clock, with the times of both sides.
pub async fn with_clock(server: &str, error: reqwest::Error) -> EnrolError {
    if !is_about_time(&error) {
        return error.into();
    }
    match time_hint(server).await.and_then(|there| clock_off(Timestamp::now(), there)) {
        Some(said) => EnrolError::Clock(format!("{} {said}", explain(&error))),
        None => error.into(),
    }
}

/// What is kept of an answer. Times are the control plane's where this host's clock is off: a clock that is set right must not
/// make the certificate end before it is renewed.
async fn kept(answer: Response, network: Name, key: Secret) -> Result<Kept, EnrolError> {
    let now = right_time(Timestamp::now(), time_there(&answer));
    let identity: Identity = read(answer).await?;
    Ok(Kept {
        agent: identity.agent,
        network_id: identity.network,
        network,
        certificate: identity.certificate,
        key,
        authorities: identity.authorities.authorities,
        authorities_mark: identity.authorities.authorities_mark,
        renew_at: now.plus(Duration::from_secs(identity.renew_after_s)),
        expires_at: now.plus(Duration::from_secs(identity.lasts_s)),
    })
}

/// Asks once to join.
///
/// # Errors
/// When this agent has not joined, and does not only wait for approval.
pub async fn join(
    server: &str,
    token: &JoinToken,
    network: &Name,
    joining: &Joining,
) -> Result<Joined, EnrolError> {
    let authority = authority(server, token).await?;
    let client = client_trusting(client_builder(TIMEOUT), &[authority])?.build()?;
    let asked = EnrolRequest {
        token: token.secret.clone(),
        network: network.clone(),
        agent: joining.agent,
        request: request_of(&joining.key)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = match client.post(format!("{server}/agent/v1/enrol")).json(&asked).send().await {
        Ok(answer) => answer,
        Err(error) => return Err(with_clock(server, error).await),
    };
    match answer.status() {
        StatusCode::OK => {
            Ok(Joined::Now(Box::new(kept(answer, network.clone(), joining.key.clone()).await?)))
        }
        StatusCode::ACCEPTED => Ok(Joined::Later(read::<Pending>(answer).await?.agent)),
        _ => Err(refusal(answer).await),
    }
}

/// Asks, by the key alone, whether another agent has this one's network: for one whose certificate has expired. Gives nothing
/// when it is not known.
pub async fn is_replaced(server: &str, kept: &Kept) -> Option<bool> {
    let asked = StandingRequest { agent: kept.agent, request: request_of(&kept.key).ok()? };
    let client = client_trusting(client_builder(TIMEOUT), &kept.authorities).ok()?.build().ok()?;
    let answer = client.post(format!("{server}/agent/v1/standing")).json(&asked).send().await.ok()?;
    match answer.status() {
        StatusCode::NO_CONTENT => Some(false),
        StatusCode::FORBIDDEN => Some(read::<Problem>(answer).await.ok()?.code == AGENT_REPLACED),
        _ => None,
    }
}

/// Asks for the next certificate, for a new key: the same one until there is an answer, since what was asked before may be heard
/// late.
///
/// # Errors
/// When there is none.
pub async fn renew(server: &str, client: &Client, now: &Kept, key: Secret) -> Result<Kept, EnrolError> {
    let asked = RenewRequest { request: request_of(&key)? };
    let url = format!("{server}/agent/v1/renew");
    let answer = match client.post(url).timeout(TIMEOUT).json(&asked).send().await {
        Ok(answer) => answer,
        Err(error) => return Err(with_clock(server, error).await),
    };
    match answer.status() {
        StatusCode::OK => kept(answer, now.network.clone(), key).await,
        _ => Err(refusal(answer).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_nothing_but_its_key() {
        let key = key_make().unwrap();
        let request = request_of(&key).unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }
}
