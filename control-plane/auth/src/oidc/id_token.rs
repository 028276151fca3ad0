//! ID tokens, which prove a sign-in to this client and nothing else (OpenID Connect Core section 3.1.3.7), and the
//! user info that completes them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use openidconnect::Nonce;
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier};
use serde_json::Value;

use super::access_token::TOKEN_MAX;
use super::identity::Claims;
use super::provider::Provider;
use super::sign_in::SignInError;

impl Provider {
    fn not_taken(&self, why: &str) -> SignInError {
        SignInError::Refused(format!("provider {}: ID token: {why}", self.name()))
    }

    /// Checks an ID token and gives its claims. A token that was asked for with a nonce must have it.
    pub(super) async fn id_token_claims(
        self: &Arc<Self>,
        token: &CoreIdToken,
        nonce: Option<&Nonce>,
    ) -> Result<Claims, SignInError> {
        let text = token.to_string();
        if text.len() > TOKEN_MAX {
            return Err(self.not_taken("it is too long"));
        }
        let header = jsonwebtoken::decode_header(&text).map_err(|_| self.not_taken("no header"))?;
        let known = self.known_with(header.kid.as_deref()).await?;
        let issuer = known.metadata.issuer().clone();
        let keys = known.id_token_keys.clone();
        let verifier = match self.client_secret() {
            Some(secret) => {
                CoreIdTokenVerifier::new_confidential_client(self.client_id(), secret, issuer, keys)
            }
            None => CoreIdTokenVerifier::new_public_client(self.client_id(), issuer, keys),
        };
        let leeway = chrono::Duration::seconds(i64::try_from(self.settings.leeway_s).unwrap_or_default());
        let verifier = verifier
            .set_allowed_algs(self.settings.algorithms.iter().map(|algorithm| algorithm.of_id_token()))
            .set_time_fn(move || chrono::Utc::now() - leeway)
            .set_issue_time_verifier_fn(move |issued| {
                if issued > chrono::Utc::now() + leeway {
                    Err("it is of the future".to_owned())
                } else {
                    Ok(())
                }
            });
        let nonce_fits = |said: Option<&Nonce>| match (nonce, said) {
            (Some(nonce), said) => openidconnect::NonceVerifier::verify(nonce, said),
            (None, _) => Ok(()),
        };
        token.claims(&verifier, nonce_fits).map_err(|error| self.not_taken(&error.to_string()))?;
        let payload = text.split('.').nth(1).and_then(|part| BASE64URL.decode(part).ok());
        payload
            .and_then(|payload| serde_json::from_slice(&payload).ok())
            .ok_or_else(|| self.not_taken("no claims"))
    }

    /// What the provider says of the person besides. It must be of the same one (section 5.3.2).
    pub(super) async fn user_info(
        self: &Arc<Self>,
        access_token: &str,
        claims: &Claims,
    ) -> Result<Claims, SignInError> {
        let known = self.known().await?;
        let Some(endpoint) = known.metadata.userinfo_endpoint() else { return Ok(Claims::new()) };
        let answer = self.http.get(endpoint.url().as_str(), Some(access_token)).await;
        let answer = answer.map_err(|error| self.no_answer(&error))?;
        if !answer.status.is_success() {
            return Err(SignInError::Refused(format!(
                "provider {}: user info: status {}",
                self.name(),
                answer.status.as_u16()
            )));
        }
        let info: Claims =
            serde_json::from_slice(&answer.body).map_err(|_| self.not_taken("user info is not JSON"))?;
        let sub = |claims: &Claims| claims.get("sub").and_then(Value::as_str).map(str::to_owned);
        if sub(&info).is_none() || sub(&info) != sub(claims) {
            return Err(self.not_taken("the user info is of somebody else"));
        }
        Ok(info)
    }
}
