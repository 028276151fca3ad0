//! One provider: what is known of it, asked for when it is needed and kept while it is down.
//!
//! Invariants: one request at a time asks; whoever can be served from what is known does not wait for it; a flood of
//! tokens with unknown key ids makes it ask once in [`UNKNOWN_KEY_PAUSE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bmi_types::Secret;
use openidconnect::core::CoreClientAuthMethod;
use openidconnect::{AuthType, ClientId, ClientSecret};
use tokio::sync::Mutex;

use super::http::{ClientError, Http};
use super::known::Known;
use super::settings::ProviderSettings;
use crate::secret_file;

/// How long a provider that did not answer is left alone.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the keys are not asked for again because of an unknown key id.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);
/// How long what is known is used while the provider is down.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A provider cannot be asked, and what is needed of it is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the identity provider `{0}` does not answer")]
pub struct Unavailable(pub String);

/// When the provider was asked.
#[derive(Debug, Default)]
struct Asked {
    last: Option<Instant>,
    for_unknown_key: Option<Instant>,
}

/// An identity provider.
pub struct Provider {
    pub(super) settings: ProviderSettings,
    pub(super) http: Http,
    pub(super) secret: Option<Secret>,
    known: ArcSwapOption<Known>,
    asked: Mutex<Asked>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Provider({})", self.settings.name)
    }
}

fn over(since: Option<Instant>, pause: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= pause)
}

impl Provider {
    /// A provider that is asked nothing yet.
    ///
    /// # Errors
    /// When its certificate or secret files cannot be used.
    pub fn new(settings: ProviderSettings) -> Result<Self, ClientError> {
        let secret = settings.client_secret_file.as_deref().map(secret_file::load).transpose();
        let secret =
            secret.map_err(|source| ClientError::Secret { provider: settings.name.to_string(), source })?;
        let http = Http::new(&settings)?;
        Ok(Self { settings, http, secret, known: ArcSwapOption::empty(), asked: Mutex::default() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.settings.name.as_str()
    }

    /// How it is configured.
    #[must_use]
    pub const fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    pub(super) fn unavailable(&self) -> Unavailable {
        Unavailable(self.name().to_owned())
    }

    /// What is known, asked for where that is nothing or too old.
    pub(super) async fn known(self: &Arc<Self>) -> Result<Arc<Known>, Unavailable> {
        if let Some(known) = self.usable() {
            if Instant::now() >= known.fresh_until {
                self.refresh_aside();
            }
            return Ok(known);
        }
        let mut asked = self.asked.lock().await;
        match self.usable() {
            Some(known) => Ok(known),
            None if over(asked.last, RETRY_PAUSE) => {
                self.fetch(&mut asked).await.ok_or_else(|| self.unavailable())
            }
            None => Err(self.unavailable()),
        }
    }

    /// What is known, asked for once more when it has no key of this id.
    pub(super) async fn known_with(self: &Arc<Self>, key: Option<&str>) -> Result<Arc<Known>, Unavailable> {
        let known = self.known().await?;
        let Some(key) = key.filter(|key| !known.has(key)) else { return Ok(known) };
        let mut asked = self.asked.lock().await;
        let known = self.usable().unwrap_or(known);
        if known.has(key) || !over(asked.for_unknown_key, UNKNOWN_KEY_PAUSE) {
            return Ok(known);
        }
        asked.for_unknown_key = Some(Instant::now());
        Ok(self.fetch(&mut asked).await.unwrap_or(known))
    }

    fn usable(&self) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| known.fetched.elapsed() < STALE_MAX)
    }

    /// Asks again while everybody goes on with what is known.
    fn refresh_aside(self: &Arc<Self>) {
        let provider = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(mut asked) = provider.asked.try_lock() else { return };
            let stale = provider.known.load_full().is_none_or(|known| Instant::now() >= known.fresh_until);
            if stale && over(asked.last, UNKNOWN_KEY_PAUSE) {
                provider.fetch(&mut asked).await;
            }
        });
    }

    async fn fetch(&self, asked: &mut Asked) -> Option<Arc<Known>> {
        let fetched = Known::fetch(&self.http, &self.settings).await;
        asked.last = Some(Instant::now());
        match fetched {
            Ok(known) => {
                let known = Arc::new(known);
                self.known.store(Some(Arc::clone(&known)));
                tracing::info!(provider = self.name(), "read the identity provider's keys");
                Some(known)
            }
            Err(error) => {
                tracing::warn!(
                    provider = self.name(),
                    error = bmi_types::chain(&error),
                    "the identity provider cannot be used"
                );
                None
            }
        }
    }

    pub(super) fn client_id(&self) -> ClientId {
        ClientId::new(self.settings.client_id.clone())
    }

    pub(super) fn client_secret(&self) -> Option<ClientSecret> {
        self.secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_owned()))
    }

    /// How this client proves itself: Basic, unless the provider takes it in the body alone.
    pub(super) fn auth_type(known: &Known) -> AuthType {
        let basic = known.metadata.token_endpoint_auth_methods_supported().is_none_or(|methods| {
            methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
                || !methods.contains(&CoreClientAuthMethod::ClientSecretPost)
        });
        if basic { AuthType::BasicAuth } else { AuthType::RequestBody }
    }
}
