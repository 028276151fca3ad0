//! Signing in at an identity provider, and out.
//!
//! Invariants: a sign-in ends once, with what its beginning gave out, and a browser's only in the browser where it
//! began; a session always has a new token, so nobody can know it before; the reasons of a refusal are logged and not
//! told; what a provider must be asked is asked outside of transactions.

use std::sync::Arc;
use std::time::Duration;

use bmi_api::{Code, DeviceAnswer, DeviceSignIn, DeviceState, Session};
use bmi_auth::audit::{Object, Outcome, Record};
use bmi_auth::oidc::{self, Callback, CodeSecrets, Identity, Provider, SignInError};
use bmi_auth::secret_token::{self, TokenKind};
use bmi_auth::{Caller, Trace};
use bmi_db::login::{self, Holder, Login};
use bmi_db::sign_in::{self, SignIn};
use bmi_types::{Secret, Timestamp};
use uuid::Uuid;

use super::App;
use super::authentication::Presented;
use crate::error::AppError;

/// How long a browser may take to come back.
const BROWSER_MAX: Duration = Duration::from_secs(10 * 60);
/// By how much a terminal must slow down that asks too early (RFC 8628 section 3.5).
const SLOWER_S: u64 = 5;
/// The longest path to go to after a sign-in, in bytes.
const RETURN_TO_MAX: usize = 2048;

/// A browser's sign-in that has begun.
pub struct BrowserBegun {
    /// Where the browser goes.
    pub url: String,
    /// What it must bring back in a cookie.
    pub cookie: Secret,
    /// How long that takes at most.
    pub longest: Duration,
}

/// A browser that signed in.
pub struct BrowserSignedIn {
    /// Its session.
    pub token: Secret,
    /// How long that lasts at most.
    pub longest: Duration,
    /// Where it goes.
    pub return_to: String,
}

/// What a browser brings back from a provider.
#[derive(Clone, Default)]
pub struct BrowserReturned {
    /// The state.
    pub state: String,
    /// The code, unless the provider refused.
    pub code: Option<String>,
    /// Who it says it is from.
    pub issuer: Option<String>,
    /// The provider's error.
    pub error: Option<String>,
    /// The cookie that the beginning set.
    pub cookie: Option<String>,
    /// The session that the browser had before.
    pub session: Option<String>,
}

fn refused() -> AppError {
    AppError::refused(Code::SignInRefused, "this sign-in cannot be finished; begin again")
}

/// Says why a sign-in was refused: to the log all of it, to the caller nothing.
fn no_sign_in(error: SignInError) -> AppError {
    match error {
        SignInError::Refused(reason) => {
            tracing::warn!(reason, "a sign-in was refused");
            refused()
        }
        SignInError::NotOffered => AppError::refused(Code::WrongState, error.to_string()),
        SignInError::Unavailable(error) => AppError::refused(Code::Unavailable, error.to_string()),
    }
}

fn new_token(kind: TokenKind) -> Result<Secret, AppError> {
    secret_token::generate(kind).map_err(|error| AppError::Defect(error.to_string()))
}

fn purpose(id: Uuid) -> String {
    format!("sign-in:{id}")
}

/// Whether a text is a path of this server, which no browser takes for another one's.
fn is_local_path(text: &str) -> bool {
    text.len() <= RETURN_TO_MAX
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn callback_url(app: &App) -> Result<String, AppError> {
    let url = app.authentication.public_url.as_ref();
    url.map(super::authentication::PublicUrl::callback)
        .ok_or_else(|| AppError::Defect("there is no public URL".to_owned()))
}

/// Begins a browser's sign-in.
///
/// # Errors
/// When there is no such provider, it is down, or `return_to` leads elsewhere.
pub async fn browser_begin(
    app: &App,
    provider: &str,
    return_to: Option<String>,
) -> Result<BrowserBegun, AppError> {
    let provider = app.authentication.providers.find(provider).ok_or_else(AppError::not_found)?;
    if return_to.as_deref().is_some_and(|path| !is_local_path(path)) {
        return Err(AppError::refused(Code::BadRequest, "return_to must be a path of this server: `/…`"));
    }
    let begun = provider.code_begin(&callback_url(app)?).await.map_err(no_sign_in)?;
    let cookie = new_token(TokenKind::SignIn)?;
    let secrets = serde_json::to_string(&begun.secrets)
        .map_err(|error| AppError::Defect(format!("secrets cannot be written: {error}")))?;
    let (id, now) = (Uuid::now_v7(), Timestamp::now());
    let row = SignIn {
        id,
        provider: provider.name().to_owned(),
        secrets_sealed: app.master_key.seal(&purpose(id), &Secret::new(secrets))?,
        browser_sha256: Some(secret_token::hash(cookie.expose())),
        return_to,
        poll_after: now,
        created_at: now,
        expires_at: now.plus(BROWSER_MAX),
    };
    let handle = secret_token::hash(&begun.state);
    app.db.system_write(move |tx| Ok::<_, AppError>(sign_in::insert(tx, &row, &handle)?)).await?;
    Ok(BrowserBegun { url: begun.url, cookie, longest: BROWSER_MAX })
}

/// Ends a browser's sign-in, and with it the session that it had.
///
/// # Errors
/// When what came back is not of a sign-in that began in this browser, or proves nothing.
pub async fn browser_finish(
    app: &App,
    returned: BrowserReturned,
    trace: Trace,
) -> Result<BrowserSignedIn, AppError> {
    let Some(cookie) = returned.cookie.filter(|cookie| secret_token::is_whole(TokenKind::SignIn, cookie))
    else {
        tracing::warn!("a browser came back from a provider without the cookie of a sign-in");
        return Err(refused());
    };
    let (handle, browser) = (secret_token::hash(&returned.state), secret_token::hash(&cookie));
    let now = Timestamp::now();
    let taken =
        app.db.system_write(move |tx| Ok::<_, AppError>(sign_in::take(tx, &handle, &browser, now)?)).await?;
    let Some(row) = taken else {
        tracing::warn!("a browser came back from a provider with no sign-in of its own");
        return Err(refused());
    };
    if let Some(error) = returned.error {
        return Err(no_sign_in(SignInError::Refused(format!(
            "provider {} answered {}",
            row.provider,
            error.chars().filter(char::is_ascii_graphic).take(64).collect::<String>()
        ))));
    }
    let provider = app.authentication.providers.find(&row.provider).ok_or_else(refused)?;
    let secrets = app.master_key.open(&purpose(row.id), &row.secrets_sealed)?;
    let secrets: CodeSecrets = serde_json::from_str(secrets.expose())
        .map_err(|_| AppError::Defect("the secrets of a sign-in cannot be read".to_owned()))?;
    let code = returned.code.unwrap_or_default();
    let callback = Callback { code: &code, issuer: returned.issuer.as_deref() };
    let identity = provider.code_finish(&callback_url(app)?, secrets, callback).await.map_err(no_sign_in)?;
    let session = session_begin(app, Holder::Browser, identity, returned.session, None, &trace).await?;
    Ok(BrowserSignedIn {
        token: session.token,
        longest: app.authentication.sessions.longest(),
        return_to: row.return_to.unwrap_or_else(|| "/".to_owned()),
    })
}

/// Writes a session with a token of its own. The session before it ends, and so does the sign-in; a sign-in that has
/// ended already gives no session.
async fn session_begin(
    app: &App,
    holder: Holder,
    identity: Identity,
    before: Option<String>,
    sign_in: Option<Uuid>,
    trace: &Trace,
) -> Result<Session, AppError> {
    let limits = app.authentication.sessions;
    let token = new_token(TokenKind::Session)?;
    let now = Timestamp::now();
    let expires_at = now.plus(limits.longest());
    let row = Login {
        id: Uuid::now_v7(),
        holder,
        provider: identity.provider,
        subject: identity.subject,
        display: identity.display,
        groups: identity.groups,
        created_at: now,
        last_seen_at: now,
        expires_at,
    };
    let record = record("session:begin", row.subject.as_str(), row.id.to_string(), trace);
    tracing::info!(subject = %row.subject, session.id = %row.id, "signed in");
    let (sha256, idle) = (secret_token::hash(token.expose()), now.minus(limits.idle()));
    let before = before.map(|token| secret_token::hash(&token));
    app.db
        .system_write(move |tx| {
            if let Some(sign_in) = sign_in
                && !sign_in::delete(tx, sign_in)?
            {
                return Err(refused());
            }
            login::forget(tx, now, idle)?;
            if let Some(before) = before {
                login::delete(tx, &before)?;
            }
            login::insert(tx, &row, &sha256)?;
            Ok(bmi_db::audit::insert(tx, &record)?)
        })
        .await?;
    Ok(Session { token, expires_at })
}

/// A line of the audit log about a session.
fn record(action: &str, actor: &str, id: String, trace: &Trace) -> Record {
    Record {
        id: Uuid::now_v7(),
        at: Timestamp::now(),
        actor: actor.to_owned(),
        project: None,
        action: action.to_owned(),
        object: Some(Object { kind: "session".to_owned(), id, name: String::new() }),
        outcome: Outcome::Done,
        request: trace.request().to_owned(),
        detail: String::new(),
    }
}

/// The provider of a name, or the only one.
fn provider_of<'a>(app: &'a App, name: Option<&str>) -> Result<&'a Arc<Provider>, AppError> {
    let providers: &oidc::Providers = &app.authentication.providers;
    match (name, providers.all()) {
        (Some(name), _) => providers.find(name).ok_or_else(AppError::not_found),
        (None, [only]) => Ok(only),
        (None, []) => Err(AppError::refused(Code::WrongState, "this server has no identity provider")),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|provider| provider.name()).collect();
            let detail = format!("name one of the identity providers: {}", names.join(", "));
            Err(AppError::refused(Code::BadRequest, detail))
        }
    }
}

/// Begins a terminal's sign-in.
///
/// # Errors
/// When there is no such provider, it is down, or does not offer this.
pub async fn device_begin(app: &App, provider: Option<&str>) -> Result<DeviceSignIn, AppError> {
    let provider = provider_of(app, provider)?;
    let begun = provider.device_begin().await.map_err(no_sign_in)?;
    let device = new_token(TokenKind::SignIn)?;
    let (id, now) = (Uuid::now_v7(), Timestamp::now());
    let row = SignIn {
        id,
        provider: provider.name().to_owned(),
        secrets_sealed: app.master_key.seal(&purpose(id), &Secret::new(begun.device_code))?,
        browser_sha256: None,
        return_to: None,
        poll_after: now,
        created_at: now,
        expires_at: now.plus(begun.expires_in),
    };
    let handle = secret_token::hash(device.expose());
    app.db.system_write(move |tx| Ok::<_, AppError>(sign_in::insert(tx, &row, &handle)?)).await?;
    Ok(DeviceSignIn {
        device,
        verification_uri: begun.verification_uri,
        verification_uri_complete: begun.verification_uri_complete,
        user_code: begun.user_code,
        interval_s: begun.interval_s,
        expires_in_s: begun.expires_in.as_secs(),
    })
}

/// Says how a terminal's sign-in goes. The provider is asked at most once in the time it wants between questions.
///
/// # Errors
/// When there is no such sign-in any more, or the provider refused.
pub async fn device_ask(app: &App, device: &str, trace: Trace) -> Result<DeviceAnswer, AppError> {
    if !secret_token::is_whole(TokenKind::SignIn, device) {
        return Err(refused());
    }
    let (handle, now) = (secret_token::hash(device), Timestamp::now());
    let asked = app
        .db
        .system_write(move |tx| {
            let Some(row) = sign_in::find_device(tx, &handle, now)? else { return Ok::<_, AppError>(None) };
            let early = now < row.poll_after;
            if !early {
                sign_in::poll_after(tx, row.id, now.plus(Duration::from_secs(SLOWER_S)))?;
            }
            Ok(Some((row, early)))
        })
        .await?;
    let (row, early) = asked.ok_or_else(refused)?;
    let waiting = |state| DeviceAnswer { state, interval_s: SLOWER_S, session: None };
    if early {
        return Ok(waiting(DeviceState::SlowDown));
    }
    let provider = app.authentication.providers.find(&row.provider).ok_or_else(refused)?;
    let code = app.master_key.open(&purpose(row.id), &row.secrets_sealed)?;
    match provider.device_ask(code.expose()).await {
        Ok(oidc::DeviceState::Pending) => Ok(waiting(DeviceState::Pending)),
        Ok(oidc::DeviceState::SlowDown) => {
            let later = Timestamp::now().plus(Duration::from_secs(2 * SLOWER_S));
            app.db.system_write(move |tx| Ok::<_, AppError>(sign_in::poll_after(tx, row.id, later)?)).await?;
            Ok(DeviceAnswer { interval_s: 2 * SLOWER_S, ..waiting(DeviceState::SlowDown) })
        }
        Ok(oidc::DeviceState::SignedIn(identity)) => {
            let session = session_begin(app, Holder::Device, identity, None, Some(row.id), &trace).await?;
            Ok(DeviceAnswer { session: Some(session), ..waiting(DeviceState::SignedIn) })
        }
        Err(error) => {
            if matches!(error, SignInError::Refused(_)) {
                app.db.system_write(move |tx| Ok::<_, AppError>(sign_in::delete(tx, row.id)?)).await?;
            }
            Err(no_sign_in(error))
        }
    }
}

/// Ends what a caller proved itself with.
///
/// # Errors
/// When no sign-in began it.
pub async fn sign_out(app: &App, caller: &Caller, presented: Presented) -> Result<(), AppError> {
    let now = Timestamp::now();
    let record = |id: String| record("session:end", caller.subject.as_str(), id, &caller.trace);
    match presented {
        Presented::Session(id, sha256) => {
            let record = record(id.to_string());
            app.db
                .system_write(move |tx| {
                    login::delete(tx, &sha256)?;
                    Ok::<_, AppError>(bmi_db::audit::insert(tx, &record)?)
                })
                .await
        }
        Presented::AccessToken(sha256, expires_at) => {
            let idle = now.minus(app.authentication.sessions.idle());
            // The first half of the hash tells tokens apart, and finds none.
            let record = record(sha256.chars().take(32).collect());
            app.db
                .system_write(move |tx| {
                    login::forget(tx, now, idle)?;
                    login::revoke(tx, &sha256, expires_at)?;
                    Ok::<_, AppError>(bmi_db::audit::insert(tx, &record)?)
                })
                .await
        }
        Presented::Other => Err(AppError::refused(
            Code::WrongState,
            "this token began with no sign-in; a service account's is removed with `bmi service-account revoke`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_returns_to_this_server_only() {
        for good in ["/", "/ui/", "/ui/nodes?x=1#y"] {
            assert!(is_local_path(good), "{good}");
        }
        let long = format!("/{}", "x".repeat(RETURN_TO_MAX));
        for bad in
            ["", "//evil", "/\\evil", "https://evil", "evil", "/a b", "/a\n", "/é", "\\/evil", long.as_str()]
        {
            assert!(!is_local_path(bad), "{bad}");
        }
    }
}
