//! Cookies: a browser's session, and its sign-in that has begun.
//!
//! Invariants: no script reads them, no other site's page sends them with anything but a link, and over TLS no other
//! host can set them (`__Host-`, RFC 6265bis section 4.1.3).

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::http::header::{self, HeaderMap};
use bmi_types::Secret;

use crate::app::App;
use crate::app::authentication::PublicUrl;

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The session.
    Session,
    /// The sign-in that has begun.
    SignIn,
}

fn is_secure(app: &App) -> bool {
    app.authentication.public_url.as_ref().is_none_or(PublicUrl::is_secure)
}

impl Kind {
    /// Its name. Browsers take no cookie with the prefix over plain HTTP, which is for this machine only.
    fn name(self, app: &App) -> &'static str {
        match (self, is_secure(app)) {
            (Self::Session, true) => "__Host-bmi-session",
            (Self::Session, false) => "bmi-session",
            (Self::SignIn, true) => "__Host-bmi-sign-in",
            (Self::SignIn, false) => "bmi-sign-in",
        }
    }

    /// Its value in a request.
    pub(super) fn read(self, app: &App, request: &HttpRequest) -> Option<String> {
        request
            .cookie(self.name(app))
            .map(|cookie| cookie.value().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// Sets it for a time.
    pub(super) fn set(self, app: &App, value: &Secret, longest: Duration) -> Cookie<'static> {
        self.with(app, value.expose().to_owned(), longest)
    }

    /// Takes it away.
    pub(super) fn clear(self, app: &App) -> Cookie<'static> {
        self.with(app, String::new(), Duration::ZERO)
    }

    fn with(self, app: &App, value: String, longest: Duration) -> Cookie<'static> {
        let seconds = i64::try_from(longest.as_secs()).unwrap_or_default();
        Cookie::build(self.name(app), value)
            .path("/")
            .http_only(true)
            .secure(is_secure(app))
            .same_site(SameSite::Lax)
            .max_age(time::Duration::seconds(seconds))
            .finish()
    }
}

/// Whether a browser says that a page of this server made a request. One that says nothing is not believed.
pub(super) fn is_same_origin(app: &App, headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = value(header::ORIGIN);
    let site = value(header::HeaderName::from_static("sec-fetch-site"));
    let ours = app.authentication.public_url.as_ref().map(PublicUrl::origin);
    (origin.is_some() || site.is_some())
        && origin.is_none_or(|origin| Some(origin) == ours)
        && site.is_none_or(|site| site == "same-origin")
}
