//! Signing in at an identity provider.

use bmi_types::{Secret, Timestamp, exposed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

/// The ways to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInWays {
    /// The identity providers.
    pub providers: Vec<SignInProvider>,
}

/// An identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInProvider {
    /// Its name.
    pub name: String,
    /// Where a browser begins.
    pub start: String,
}

/// What begins a sign-in without a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDeviceSignIn {
    /// Which provider; without one, the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub provider: Option<String>,
}

/// A sign-in that waits for a person with a browser elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignIn {
    /// What to ask with how it goes.
    #[serde(with = "exposed")]
    #[schema(value_type = String)]
    pub device: Secret,
    /// Where the person goes.
    pub verification_uri: String,
    /// The same with the code in it, where the provider has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// What the person enters there.
    pub user_code: String,
    /// Seconds to wait between two questions.
    pub interval_s: u64,
    /// Seconds until it is over.
    pub expires_in_s: u64,
}

/// What asks how a sign-in goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceQuestion {
    /// `device` of the answer to its beginning.
    #[serde(with = "exposed")]
    #[schema(value_type = String, min_length = 1)]
    pub device: Secret,
}

words! {
    /// How a sign-in goes.
    DeviceState {
        /// The person has not decided yet. Enters: begun. Leaves: to `signed-in`, or it is refused.
        Pending = "pending",
        /// The same, and the question came too early: wait longer from now on.
        SlowDown = "slow-down",
        /// The person signed in; the answer has the token. It is given once.
        SignedIn = "signed-in",
    }
}

/// How a sign-in goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceAnswer {
    /// Its state.
    pub state: DeviceState,
    /// Seconds to wait before the next question.
    pub interval_s: u64,
    /// The session, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// A session and its token, which is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The token: `bmi-session-…`.
    #[serde(with = "exposed")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}
