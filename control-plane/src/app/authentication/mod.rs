//! Who is calling: the one place where a token or a session becomes a caller.
//!
//! ```text
//! public_url.rs  where browsers reach this server
//! throttle.rs    how often somebody may try to sign in
//! ```
//!
//! Deliberately absent: what the caller may do; HTTP.
//!
//! Invariants: a token's kind is told by its prefix, and each kind is looked up in one place only; a token that is
//! not whole asks nobody; only hashes reach the database.

mod public_url;
mod throttle;

use std::time::Duration;

use bmi_api::Code;
use bmi_auth::oidc::{Providers, TokenError};
use bmi_auth::secret_token::{self, TokenKind};
use bmi_auth::{Caller, LocalAdmin, Proof, Trace};
use bmi_db::{login, service_account};
use bmi_types::Timestamp;
use serde::Deserialize;

use super::App;
use crate::error::AppError;

pub use public_url::PublicUrl;
pub(crate) use throttle::prefix;
pub use throttle::{Throttle, ThrottleLimits};

/// How exactly it is known when something was used last: a write for each request would be too many.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// How long sessions last.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionLimits {
    /// Minutes after which a session that is not used ends.
    pub idle_minutes: u32,
    /// Hours after which a session ends, used or not.
    pub hours: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { idle_minutes: 120, hours: 12 }
    }
}

impl SessionLimits {
    /// How long a session lasts that is not used.
    #[must_use]
    pub const fn idle(self) -> Duration {
        Duration::from_secs(self.idle_minutes as u64 * 60)
    }

    /// How long a session lasts at most.
    #[must_use]
    pub const fn longest(self) -> Duration {
        Duration::from_secs(self.hours as u64 * 60 * 60)
    }
}

/// How callers may prove who they are.
pub struct Authentication {
    /// Knows the local admin, unless that is switched off.
    pub local_admin: Option<LocalAdmin>,
    /// The identity providers.
    pub providers: Providers,
    /// Where browsers come back to; there is one when there are providers.
    pub public_url: Option<PublicUrl>,
    /// How long sessions last.
    pub sessions: SessionLimits,
    /// How long a service account's token lasts at most, in days.
    pub service_token_max_days: u32,
    /// Who tries to sign in how often.
    pub throttle: Throttle,
}

/// What a request brings to prove who calls.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A bearer token.
    Bearer(&'a str),
    /// The session cookie of a browser.
    Cookie(&'a str),
}

/// What proved who calls, as far as a sign-out needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// A session, by its id and the hash of its token.
    Session(uuid::Uuid, String),
    /// A provider's access token, by its hash, and when it ends.
    AccessToken(String, Timestamp),
    /// A token that no sign-in began.
    Other,
}

/// The refusal of whatever proves nothing: always the same.
#[must_use]
pub fn unproven() -> AppError {
    AppError::refused(Code::Unauthenticated, "send `Authorization: Bearer <token>` with a valid token")
}

fn expired() -> AppError {
    AppError::refused(
        Code::TokenExpired,
        "the token or session has expired; sign in again, or make a new token",
    )
}

/// Finds out who calls.
///
/// # Errors
/// When the credential proves nothing, has expired, or cannot be checked now.
pub async fn authenticate(app: &App, credential: Credential<'_>) -> Result<(Caller, Presented), AppError> {
    match credential {
        Credential::Cookie(token) => session(app, login::Holder::Browser, token).await,
        Credential::Bearer(token) if token.starts_with(TokenKind::Session.prefix()) => {
            session(app, login::Holder::Device, token).await
        }
        Credential::Bearer(token) if token.starts_with(TokenKind::ServiceAccount.prefix()) => {
            service_token(app, token).await
        }
        Credential::Bearer(token) if token.starts_with(LocalAdmin::PREFIX) => {
            let local_admin = app.authentication.local_admin.as_ref();
            let caller = local_admin.and_then(|known| known.authenticate(token)).ok_or_else(unproven)?;
            Ok((caller, Presented::Other))
        }
        Credential::Bearer(token) => access_token(app, token).await,
    }
}

async fn session(app: &App, holder: login::Holder, token: &str) -> Result<(Caller, Presented), AppError> {
    if !secret_token::is_whole(TokenKind::Session, token) {
        return Err(unproven());
    }
    let sha256 = secret_token::hash(token);
    let sought = sha256.clone();
    let found = app.db.system_read(move |tx| Ok::<_, AppError>(login::find(tx, holder, &sought)?)).await?;
    // A session of a provider that is not configured any more proves nothing any more.
    let known = found.filter(|login| app.authentication.providers.find(&login.provider).is_some());
    let login = known.ok_or_else(unproven)?;
    let now = Timestamp::now();
    if now >= login.expires_at || now >= login.last_seen_at.plus(app.authentication.sessions.idle()) {
        return Err(expired());
    }
    if now >= login.last_seen_at.plus(SEEN_EVERY) {
        app.db.system_write(move |tx| Ok::<_, AppError>(login::seen(tx, login.id, now)?)).await?;
    }
    let caller = Caller {
        subject: login.subject,
        display: login.display,
        proof: Proof::Session,
        groups: login.groups,
        limits: None,
        trace: Trace::default(),
    };
    Ok((caller, Presented::Session(login.id, sha256)))
}

async fn service_token(app: &App, token: &str) -> Result<(Caller, Presented), AppError> {
    if !secret_token::is_whole(TokenKind::ServiceAccount, token) {
        return Err(unproven());
    }
    let sha256 = secret_token::hash(token);
    let found =
        app.db.system_read(move |tx| Ok::<_, AppError>(service_account::of_token(tx, &sha256)?)).await?;
    let holder = found.ok_or_else(unproven)?;
    let now = Timestamp::now();
    if now >= holder.expires_at {
        return Err(expired());
    }
    if holder.last_used_at.is_none_or(|last| now >= last.plus(SEEN_EVERY)) {
        let token = holder.token;
        app.db
            .system_write(move |tx| Ok::<_, AppError>(service_account::token_used(tx, token, now)?))
            .await?;
    }
    let caller = Caller {
        subject: holder.subject(),
        display: holder.name,
        proof: Proof::ServiceToken,
        groups: Vec::new(),
        limits: Some(holder.limits),
        trace: Trace::default(),
    };
    Ok((caller, Presented::Other))
}

async fn access_token(app: &App, token: &str) -> Result<(Caller, Presented), AppError> {
    let token_checked = match app.authentication.providers.access_token(token).await {
        Ok(checked) => checked,
        Err(TokenError::Expired) => return Err(expired()),
        Err(TokenError::Unavailable(error)) => {
            return Err(AppError::refused(Code::Unavailable, error.to_string()));
        }
        Err(TokenError::Refused(reason)) => {
            tracing::info!(reason, "a bearer token was refused");
            return Err(unproven());
        }
    };
    let sha256 = token_checked.sha256;
    let sought = sha256.clone();
    if app.db.system_read(move |tx| Ok::<_, AppError>(login::is_revoked(tx, &sought)?)).await? {
        return Err(expired());
    }
    let expires_us = i64::try_from(token_checked.expires_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let identity = token_checked.identity;
    let caller = Caller {
        subject: identity.subject,
        display: identity.display,
        proof: Proof::AccessToken,
        groups: identity.groups,
        limits: None,
        trace: Trace::default(),
    };
    Ok((caller, Presented::AccessToken(sha256, Timestamp::from_micros(expires_us))))
}
