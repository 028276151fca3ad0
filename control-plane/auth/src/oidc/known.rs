//! What a provider says of itself: its endpoints and its keys. Read from two documents, checked, and then fixed.

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::http::HeaderMap;
use openidconnect::http::header::CACHE_CONTROL;
use openidconnect::url::Url;
use openidconnect::{AdditionalProviderMetadata, DeviceAuthorizationUrl, ProviderMetadata};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::{Http, HttpError};
use super::settings::{ProviderSettings, is_safe};

/// The shortest time that keys are used before they are asked for again.
const FRESH_MIN: Duration = Duration::from_secs(5 * 60);
/// The longest, whatever the provider says: a key that it has withdrawn is not used longer.
const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// When the provider does not say.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// The most keys that are looked at.
const KEYS_MAX: usize = 64;

/// What discovery has besides OpenID Connect Discovery 1.0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct More {
    /// RFC 8628.
    pub(super) device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
    /// RFC 9207.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

pub(super) type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// A key that signs tokens.
pub(super) struct TokenKey {
    id: Option<String>,
    /// The only algorithm it is for, when its owner says so.
    algorithm: Option<String>,
    pub(super) key: DecodingKey,
}

/// What is known of a provider.
pub(super) struct Known {
    pub(super) metadata: Metadata,
    pub(super) id_token_keys: CoreJsonWebKeySet,
    keys: Vec<TokenKey>,
    pub(super) fetched: Instant,
    pub(super) fresh_until: Instant,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot fetch {what}")]
    Http {
        what: &'static str,
        #[source]
        source: HttpError,
    },
    #[error("{what} was answered with status {status}")]
    Status { what: &'static str, status: u16 },
    #[error("{what} cannot be read")]
    Content {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the discovery document is of another issuer: {0}")]
    OtherIssuer(String),
    #[error("the discovery document names an endpoint that is neither https nor on this machine: {0}")]
    Unsafe(String),
    #[error("the provider has no key for the configured algorithms")]
    NoKey,
}

const DISCOVERY: &str = "the discovery document";
const KEYS: &str = "the key set";

impl Known {
    /// Asks a provider for both documents.
    pub(super) async fn fetch(http: &Http, settings: &ProviderSettings) -> Result<Self, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", settings.issuer.trim_end_matches('/'));
        let (_, body) = get(http, &url, DISCOVERY).await?;
        let metadata: Metadata = serde_json::from_slice(&body)
            .map_err(|source| FetchError::Content { what: DISCOVERY, source })?;
        if metadata.issuer().as_str() != settings.issuer {
            return Err(FetchError::OtherIssuer(metadata.issuer().to_string()));
        }
        for endpoint in endpoints(&metadata) {
            if !is_safe(endpoint) {
                return Err(FetchError::Unsafe(endpoint.to_string()));
            }
        }
        let (headers, body) = get(http, metadata.jwks_uri().url().as_str(), KEYS).await?;
        let fetched = Instant::now();
        let keys: Keys =
            serde_json::from_slice(&body).map_err(|source| FetchError::Content { what: KEYS, source })?;
        // A key of a kind that is not understood does not spoil the others.
        let read: Vec<TokenKey> = keys.keys.iter().take(KEYS_MAX).filter_map(token_key).collect();
        let of_id_tokens = keys.keys.into_iter().take(KEYS_MAX);
        let of_id_tokens = of_id_tokens.filter_map(|key| serde_json::from_value::<CoreJsonWebKey>(key).ok());
        if read.is_empty() {
            return Err(FetchError::NoKey);
        }
        Ok(Self {
            metadata,
            id_token_keys: CoreJsonWebKeySet::new(of_id_tokens.collect()),
            keys: read,
            fetched,
            fresh_until: fetched + freshness(&headers),
        })
    }

    /// The key for a signature: the one of that id; without an id the only one that fits.
    pub(super) fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&TokenKey> {
        let name = format!("{algorithm:?}");
        let mut fitting = self.keys.iter().filter(|key| {
            key.key.family().algorithms().contains(&algorithm)
                && key.algorithm.as_ref().is_none_or(|only| *only == name)
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// Whether there is a key of an id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Value>,
}

async fn get(http: &Http, url: &str, what: &'static str) -> Result<(HeaderMap, Vec<u8>), FetchError> {
    let answer = http.get(url, None).await.map_err(|source| FetchError::Http { what, source })?;
    if !answer.status.is_success() {
        return Err(FetchError::Status { what, status: answer.status.as_u16() });
    }
    Ok((answer.headers, answer.body))
}

/// Every address that this server or a browser is sent to.
fn endpoints(metadata: &Metadata) -> impl Iterator<Item = &Url> {
    let more = metadata.additional_metadata();
    [
        Some(metadata.authorization_endpoint().url()),
        Some(metadata.jwks_uri().url()),
        metadata.token_endpoint().map(|url| url.url()),
        metadata.userinfo_endpoint().map(|url| url.url()),
        more.device_authorization_endpoint.as_ref().map(|url| url.url()),
    ]
    .into_iter()
    .flatten()
}

fn token_key(key: &Value) -> Option<TokenKey> {
    // A shared secret in a public document is no secret.
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    if key.get("kty")? == "oct" || jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    let text = |name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(TokenKey { id: text("kid"), algorithm: text("alg"), key: DecodingKey::from_jwk(&jwk).ok()? })
}

/// How long an answer may be used (RFC 9111 section 5.2.2), within our bounds.
fn freshness(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut said = FRESH;
    for directive in directives.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if let Some(seconds) = directive.strip_prefix("max-age=").and_then(|text| text.parse().ok()) {
            said = Duration::from_secs(seconds);
        } else if directive == "no-store" || directive == "no-cache" {
            return FRESH_MIN;
        }
    }
    said.clamp(FRESH_MIN, FRESH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_kept_to_within_bounds() {
        let fresh = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            freshness(&headers).as_secs()
        };
        assert_eq!(freshness(&HeaderMap::new()), FRESH);
        assert_eq!(fresh("public, max-age=1800"), 1800);
        assert_eq!(fresh("max-age=1"), 300);
        assert_eq!(fresh("max-age=99999999"), 86_400);
        assert_eq!(fresh("no-store, max-age=1800"), 300);
        assert_eq!(fresh("max-age=soon"), 3600);
    }

    #[test]
    fn a_shared_secret_or_an_encryption_key_signs_nothing() {
        let oct = serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "1"});
        assert!(token_key(&oct).is_none());
        let ed = |usage: &str| {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            token_key(&serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": x, "use": usage}))
        };
        assert!(ed("enc").is_none());
        assert!(ed("sig").is_some());
    }
}
