//! Access tokens of a provider, as callers of the API send them (RFC 9068, RFC 8725).
//!
//! Invariants: nothing of a token is believed before its signature is checked, except which of the configured
//! providers is asked; the algorithms are those of the configuration; keys come from the provider's own document,
//! never from a header.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;

use super::identity::{Claims, Identity};
use super::provider::{Provider, Unavailable};
use super::settings::AccessTokenType;

/// The longest token that is looked at, in bytes.
pub(super) const TOKEN_MAX: usize = 16 * 1024;

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good, and its time is over.
    #[error("the token has expired")]
    Expired,
    /// It proves nothing. The reason is for the log.
    #[error("{0}")]
    Refused(&'static str),
    /// Whether it does cannot be known now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A token that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// Who sent it.
    pub identity: Identity,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// The issuer that a token names, before anything of it is checked.
pub(super) fn issuer(token: &str) -> Result<String, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Refused("it is too long"));
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Refused("it is not a token"));
    };
    let payload = BASE64URL.decode(payload).map_err(|_| TokenError::Refused("it is not a token"))?;
    let issuer: Issuer =
        serde_json::from_slice(&payload).map_err(|_| TokenError::Refused("it names no issuer"))?;
    Ok(issuer.iss)
}

impl Provider {
    /// Checks an access token.
    ///
    /// # Errors
    /// When it proves nothing, has expired, or cannot be checked now.
    pub async fn access_token(self: &Arc<Self>, token: &str) -> Result<AccessToken, TokenError> {
        let refused = TokenError::Refused;
        if token.len() > TOKEN_MAX {
            return Err(refused("it is too long"));
        }
        let Some(audience) = &self.settings.audience else {
            return Err(refused("access tokens of its provider are not taken"));
        };
        let header = decode_header(token).map_err(|_| refused("its header cannot be read"))?;
        self.header_check(&header)?;
        let known = self.known_with(header.kid.as_deref()).await?;
        let key = known.key(header.kid.as_deref(), header.alg).ok_or(refused("there is no key for it"))?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.settings.leeway_s;
        validation.validate_nbf = true;
        validation.set_audience(&[audience]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims =
            decode::<Claims>(token, &key.key, &validation).map_err(|error| refusal(error.kind()))?.claims;
        // A list of issuers would pass the library.
        if claims.get("iss").and_then(serde_json::Value::as_str) != Some(&self.settings.issuer) {
            return Err(refused("its issuer is another"));
        }
        let seconds = |name: &str| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::INFINITY));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let latest = (get_current_timestamp() + self.settings.leeway_s) as f64;
        if seconds("iat").is_some_and(|issued| issued > latest) {
            return Err(refused("it is of the future"));
        }
        // Without a type of their own, access tokens differ from ID tokens by what only those have.
        let of_sign_in = ["nonce", "at_hash", "c_hash"].iter().any(|claim| claims.contains_key(*claim));
        if self.settings.access_token_type == AccessTokenType::Jwt && of_sign_in {
            return Err(refused("it is an ID token"));
        }
        let expires_s = claims.get("exp").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let identity = Identity::of(&self.settings, &claims).ok_or(refused("its sub cannot be used"))?;
        Ok(AccessToken { identity, expires_s: expires_s + self.settings.leeway_s })
    }

    fn header_check(&self, header: &Header) -> Result<(), TokenError> {
        if !self.settings.algorithms.iter().any(|algorithm| algorithm.of_token() == header.alg) {
            return Err(TokenError::Refused("its algorithm is not allowed"));
        }
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Refused("its header wants what is not understood"));
        }
        let kind = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        let wanted = match self.settings.access_token_type {
            AccessTokenType::AtJwt => "at+jwt",
            AccessTokenType::Jwt => "jwt",
        };
        if kind == wanted { Ok(()) } else { Err(TokenError::Refused("it is of another type")) }
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    TokenError::Refused(match kind {
        ErrorKind::ExpiredSignature => return TokenError::Expired,
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "its issuer is another",
        ErrorKind::InvalidAudience => "its audience is another",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "a claim is missing",
        _ => "it cannot be read",
    })
}
