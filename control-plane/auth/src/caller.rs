//! The caller of a request, once it has proved who it is.
//!
//! Deliberately absent: what it may do. Roles are bound to subjects, and the authorizer knows the bindings.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bmi_types::ProjectId;
use uuid::Uuid;

use crate::policy::{Action, Domain};

/// Whom a role can be bound to: a stable text that is never read back.
///
/// `local-admin`, `user:<provider>:<sub>`, `group:<provider>:<value>` or `service-account:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

impl Subject {
    /// The holder of the local admin token.
    #[must_use]
    pub fn local_admin() -> Self {
        Self("local-admin".to_owned())
    }

    /// A person, by the provider's name in the configuration and its `sub`.
    #[must_use]
    pub fn user(provider: &str, sub: &str) -> Self {
        Self(format!("user:{provider}:{sub}"))
    }

    /// Whoever a provider says is in a group, or has a value in the claim that stands for groups.
    #[must_use]
    pub fn group(provider: &str, value: &str) -> Self {
        Self(format!("group:{provider}:{value}"))
    }

    /// A service account.
    #[must_use]
    pub fn service_account(id: Uuid) -> Self {
        Self(format!("service-account:{id}"))
    }

    /// One that was written down before.
    #[must_use]
    pub const fn known(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The local admin token.
    LocalAdmin,
    /// A session that began with a sign-in at a provider.
    Session,
    /// A provider's access token.
    AccessToken,
    /// A service account's token.
    ServiceToken,
}

/// What a service account is limited to, whatever its roles allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Its project: it never acts outside of it.
    pub project: ProjectId,
    /// `noun:verb`, `noun:*` or `*`, as it was created with. An action needs one of them.
    pub scopes: Vec<String>,
}

/// What is known of a caller's request: its id, and what was decided for it.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    request: String,
    decided: Arc<Mutex<Vec<(Action, Domain)>>>,
}

impl Trace {
    /// The trace of a request.
    #[must_use]
    pub fn of(request: String) -> Self {
        Self { request, decided: Arc::default() }
    }

    /// The request's id.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Notes that something was allowed.
    pub fn allowed(&self, action: Action, domain: Domain) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if !decided.contains(&(action, domain)) {
            decided.push((action, domain));
        }
    }

    /// What was allowed so far.
    #[must_use]
    pub fn decided(&self) -> Vec<(Action, Domain)> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.request == other.request
    }
}

impl Eq for Trace {}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A stable name.
    pub subject: Subject,
    /// A name for people; it proves nothing.
    pub display: String,
    /// How it proved who it is.
    pub proof: Proof,
    /// Its groups: what is bound to them holds for the caller too.
    pub groups: Vec<Subject>,
    /// Only for service accounts.
    pub limits: Option<Limits>,
    /// Its request.
    pub trace: Trace,
}

impl Caller {
    /// The holder of the local admin token.
    #[must_use]
    pub fn local_admin() -> Self {
        Self {
            subject: Subject::local_admin(),
            display: "local admin".to_owned(),
            proof: Proof::LocalAdmin,
            groups: Vec::new(),
            limits: None,
            trace: Trace::default(),
        }
    }

    /// The caller's own subject and its groups.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        std::iter::once(&self.subject).chain(&self.groups)
    }
}
