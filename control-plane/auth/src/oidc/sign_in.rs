//! Signing in: the code flow for browsers (with PKCE, state and nonce, always), and the device flow for terminals.
//!
//! Deliberately absent: where a sign-in that has begun is remembered. What must be remembered is given back.

use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreDeviceAuthorizationResponse, CoreErrorResponseType,
    CoreTokenResponse,
};
use openidconnect::{
    AuthorizationCode, CsrfToken, IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, Scope, StandardErrorResponse,
};
use serde::{Deserialize, Serialize};

use super::http::HttpError;
use super::identity::Identity;
use super::known::Known;
use super::provider::{Provider, Unavailable};

/// The longest code that is passed on, in bytes.
const CODE_MAX: usize = 4096;
/// The shortest and the longest time between two questions about a device, in seconds.
const INTERVAL_S: (u64, u64) = (1, 60);
/// The longest that a device sign-in is waited for.
const DEVICE_MAX: Duration = Duration::from_secs(30 * 60);

/// Why nobody signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// The provider refused, or what it says proves nothing. The reason is for the log.
    #[error("{0}")]
    Refused(String),
    /// The provider cannot do this.
    #[error("the identity provider does not offer this way to sign in")]
    NotOffered,
    /// The provider does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a callback must be checked against.
#[derive(Serialize, Deserialize)]
pub struct CodeSecrets {
    nonce: String,
    verifier: String,
}

/// A browser's sign-in that has begun.
pub struct CodeBegun {
    /// Where the browser goes.
    pub url: String,
    /// What comes back from there.
    pub state: String,
    /// What is kept until then.
    pub secrets: CodeSecrets,
}

/// What came back with a browser.
#[derive(Debug, Clone, Copy)]
pub struct Callback<'a> {
    /// The code.
    pub code: &'a str,
    /// The issuer that it says it is from (RFC 9207).
    pub issuer: Option<&'a str>,
}

/// A terminal's sign-in that has begun.
pub struct DeviceBegun {
    /// What the server asks with.
    pub device_code: String,
    /// What the person enters.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// How long there is.
    pub expires_in: Duration,
    /// How long to wait between two questions, in seconds.
    pub interval_s: u64,
}

/// How a terminal's sign-in goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// The person has not decided.
    Pending,
    /// The same, and it was asked too often.
    SlowDown,
    /// Done.
    SignedIn(Identity),
}

type ServerError = StandardErrorResponse<CoreErrorResponseType>;

#[derive(Deserialize)]
struct DeviceProblem {
    error: String,
}

impl Provider {
    fn refused(&self, what: &str, why: &str) -> SignInError {
        SignInError::Refused(format!("provider {}: {what}: {why}", self.name()))
    }

    fn client(&self, known: &Known) -> CoreClient<openidconnect::EndpointSet> {
        CoreClient::new(
            self.client_id(),
            IssuerUrl::from_url(known.metadata.issuer().url().clone()),
            known.id_token_keys.clone(),
        )
        .set_auth_uri(known.metadata.authorization_endpoint().clone())
        .set_auth_type(Self::auth_type(known))
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.settings.scopes.iter().filter(|scope| *scope != "openid").map(|scope| Scope::new(scope.clone()))
    }

    /// Begins a browser's sign-in that comes back to `redirect`.
    ///
    /// # Errors
    /// When the provider is not known and cannot be asked.
    pub async fn code_begin(self: &Arc<Self>, redirect: &str) -> Result<CodeBegun, SignInError> {
        let known = self.known().await?;
        let redirect =
            RedirectUrl::new(redirect.to_owned()).map_err(|_| self.refused("redirect", "not a URL"))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = self.client(&known).set_redirect_uri(redirect);
        let (url, state, nonce) = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                || CsrfToken::new_random_len(32),
                || Nonce::new_random_len(32),
            )
            .add_scopes(self.scopes())
            .set_pkce_challenge(challenge)
            .url();
        let secrets = CodeSecrets { nonce: nonce.secret().clone(), verifier: verifier.into_secret() };
        Ok(CodeBegun { url: url.into(), state: state.into_secret(), secrets })
    }

    /// Ends a browser's sign-in: exchanges the code and checks the ID token.
    ///
    /// # Errors
    /// When the provider refuses the code, or its token is not one for this sign-in.
    pub async fn code_finish(
        self: &Arc<Self>,
        redirect: &str,
        secrets: CodeSecrets,
        callback: Callback<'_>,
    ) -> Result<Identity, SignInError> {
        let known = self.known().await?;
        let names_itself =
            known.metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match callback.issuer {
            None if names_itself => return Err(self.refused("callback", "it names no issuer")),
            Some(issuer) if issuer != self.settings.issuer => {
                return Err(self.refused("callback", "it names another issuer"));
            }
            _ => {}
        }
        if callback.code.is_empty() || callback.code.len() > CODE_MAX {
            return Err(self.refused("callback", "its code cannot be one"));
        }
        let redirect =
            RedirectUrl::new(redirect.to_owned()).map_err(|_| self.refused("redirect", "not a URL"))?;
        let endpoint = known.metadata.token_endpoint().cloned().ok_or(SignInError::NotOffered)?;
        let mut client = self.client(&known).set_token_uri(endpoint).set_redirect_uri(redirect);
        if let Some(secret) = self.client_secret() {
            client = client.set_client_secret(secret);
        }
        let http = |request| self.http.call(request);
        let answer = client
            .exchange_code(AuthorizationCode::new(callback.code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier))
            .request_async(&http)
            .await
            .map_err(|error| self.request_failed("token", error))?;
        let nonce = Nonce::new(secrets.nonce);
        self.identity(&answer, Some(&nonce)).await
    }

    /// Begins a terminal's sign-in.
    ///
    /// # Errors
    /// When the provider does not offer it, or does not answer.
    pub async fn device_begin(self: &Arc<Self>) -> Result<DeviceBegun, SignInError> {
        let known = self.known().await?;
        let endpoint = known.metadata.additional_metadata().device_authorization_endpoint.clone();
        let mut client =
            self.client(&known).set_device_authorization_url(endpoint.ok_or(SignInError::NotOffered)?);
        if let Some(secret) = self.client_secret() {
            client = client.set_client_secret(secret);
        }
        let http = |request| self.http.call(request);
        let answer: CoreDeviceAuthorizationResponse = client
            .exchange_device_code()
            .add_scopes(self.scopes())
            .request_async(&http)
            .await
            .map_err(|error| self.request_failed("device", error))?;
        Ok(DeviceBegun {
            device_code: answer.device_code().secret().clone(),
            user_code: answer.user_code().secret().clone(),
            verification_uri: answer.verification_uri().to_string(),
            verification_uri_complete: answer.verification_uri_complete().map(|url| url.secret().clone()),
            expires_in: answer.expires_in().min(DEVICE_MAX),
            interval_s: answer.interval().as_secs().clamp(INTERVAL_S.0, INTERVAL_S.1),
        })
    }

    /// Asks once how a terminal's sign-in goes (RFC 8628 section 3.4).
    ///
    /// # Errors
    /// When it was refused or has expired, or the provider does not answer.
    pub async fn device_ask(self: &Arc<Self>, device_code: &str) -> Result<DeviceState, SignInError> {
        let known = self.known().await?;
        let endpoint = known.metadata.token_endpoint().ok_or(SignInError::NotOffered)?.url().as_str();
        let id = &self.settings.client_id;
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code),
        ];
        let secret = self.secret.as_ref().map(bmi_types::Secret::expose);
        // RFC 6749 section 2.3.1: name and secret are encoded before they become Basic authentication.
        let encoded =
            |text: &str| openidconnect::url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let basic: Option<(String, String)> = match (secret, Self::auth_type(&known)) {
            (Some(secret), openidconnect::AuthType::BasicAuth) => Some((encoded(id), encoded(secret))),
            (secret, _) => {
                fields.push(("client_id", id));
                fields.extend(secret.map(|secret| ("client_secret", secret)));
                None
            }
        };
        let basic = basic.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
        let answer =
            self.http.form(endpoint, basic, &fields).await.map_err(|error| self.no_answer(&error))?;
        if answer.status.is_success() {
            let answer: CoreTokenResponse = serde_json::from_slice(&answer.body)
                .map_err(|_| self.refused("token", "the answer cannot be read"))?;
            return self.identity(&answer, None).await.map(DeviceState::SignedIn);
        }
        match serde_json::from_slice::<DeviceProblem>(&answer.body) {
            Ok(problem) if problem.error == "authorization_pending" => Ok(DeviceState::Pending),
            Ok(problem) if problem.error == "slow_down" => Ok(DeviceState::SlowDown),
            Ok(problem) if answer.status.is_client_error() => {
                Err(self.refused("token", &printable(&problem.error)))
            }
            _ => {
                tracing::warn!(
                    provider = self.name(),
                    status = answer.status.as_u16(),
                    "no answer about a device"
                );
                Err(self.unavailable().into())
            }
        }
    }

    /// Who it is, from a checked ID token, and from the provider's user info where that token says nothing of groups.
    async fn identity(
        self: &Arc<Self>,
        answer: &CoreTokenResponse,
        nonce: Option<&Nonce>,
    ) -> Result<Identity, SignInError> {
        let token =
            answer.extra_fields().id_token().ok_or_else(|| self.refused("token", "there is no ID token"))?;
        let mut claims = self.id_token_claims(token, nonce).await?;
        if !super::identity::says_groups(&self.settings, &claims) {
            for (name, value) in self.user_info(answer.access_token().secret(), &claims).await? {
                claims.entry(name).or_insert(value);
            }
        }
        Identity::of(&self.settings, &claims)
            .ok_or_else(|| self.refused("ID token", "its sub cannot be used"))
    }

    fn request_failed(&self, what: &str, error: RequestTokenError<HttpError, ServerError>) -> SignInError {
        match error {
            RequestTokenError::ServerResponse(said) => self.refused(what, &printable(said.error().as_ref())),
            RequestTokenError::Request(error) => self.no_answer(&error),
            // Its text may have a token in it.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                tracing::warn!(provider = self.name(), what, "the identity provider's answer cannot be read");
                self.unavailable().into()
            }
        }
    }

    pub(super) fn no_answer(&self, error: &HttpError) -> SignInError {
        tracing::warn!(
            provider = self.name(),
            error = bmi_types::chain(error),
            "the identity provider does not answer"
        );
        self.unavailable().into()
    }
}

/// An error code of a provider, as far as it can be written to a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
