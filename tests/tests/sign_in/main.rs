//! Sign-in and tokens against identity providers of other people's making: what works, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test ends by panicking"
)]

mod browser;
mod cli;
mod device;
mod https;
mod service_accounts;
mod tokens;
mod two_providers;

use bmi_tests::{Api, Deployment, OidcProvider, STORE_SMALL};

/// A deployment with the certified provider. The local admin stays, to set up what a test needs.
fn start(more: &str) -> (Deployment, OidcProvider) {
    let mut deployment = Deployment::start(STORE_SMALL);
    let provider = OidcProvider::start(&deployment);
    let settings = provider.settings(&deployment);
    // A test is one address, and in a hurry.
    let limits = if more.contains("[sign_in]") { "" } else { "[sign_in]\nattempts_per_minute = 1000\n" };
    deployment.sign_in_configure(&format!("[local_admin]\nenabled = true\n{limits}{more}\n{settings}"));
    (deployment, provider)
}

/// The API as the holder of a token.
fn holder(deployment: &Deployment, token: &str) -> Api {
    deployment.api.authorized(Some(&format!("Bearer {token}")))
}
