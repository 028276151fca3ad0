//! OpenID Connect: people who sign in at an identity provider, and callers with its access tokens.
//!
//! ```text
//! settings.rs      a provider in the configuration
//! http.rs          requests to it
//! known.rs         what it says of itself: endpoints and keys
//! provider.rs      when that is asked for, and kept
//! access_token.rs  tokens that callers send
//! sign_in.rs       the code flow and the device flow
//! id_token.rs      what those end with
//! identity.rs      claims become a subject and its groups
//! ```
//!
//! Deliberately absent: sessions, cookies, the database.
//!
//! Invariants: the server starts and goes on when a provider is down; what a provider or a caller sends is bounded
//! before it is read; reasons for a refusal go to the log and to nobody else, and have no token in them.

mod access_token;
mod http;
mod id_token;
mod identity;
mod known;
mod provider;
mod settings;
mod sign_in;

use std::sync::Arc;

pub use access_token::{AccessToken, TokenError};
pub use http::ClientError;
pub use identity::Identity;
pub use openidconnect::url::Url;
pub use provider::{Provider, RETRY_PAUSE, Unavailable};
pub use settings::{AccessTokenType, GroupRole, ProviderSettings, SignatureAlgorithm, is_safe};
pub use sign_in::{Callback, CodeBegun, CodeSecrets, DeviceBegun, DeviceState, SignInError};

/// The providers of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Providers(Vec<Arc<Provider>>);

impl Providers {
    /// The providers of a configuration that was checked.
    ///
    /// # Errors
    /// When a file that one needs cannot be used.
    pub fn new(settings: Vec<ProviderSettings>) -> Result<Self, ClientError> {
        settings.into_iter().map(|one| Provider::new(one).map(Arc::new)).collect::<Result<_, _>>().map(Self)
    }

    /// All of them, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Arc<Provider>] {
        &self.0
    }

    /// The provider of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Provider>> {
        self.0.iter().find(|provider| provider.name() == name)
    }

    /// Checks an access token with the provider that it names.
    ///
    /// # Errors
    /// When it proves nothing, has expired, or cannot be checked now.
    pub async fn access_token(&self, token: &str) -> Result<AccessToken, TokenError> {
        let issuer = access_token::issuer(token)?;
        let provider = self.0.iter().find(|provider| provider.settings().issuer == issuer);
        provider.ok_or(TokenError::Refused("its issuer is not known"))?.access_token(token).await
    }
}
