//! Who is calling.

use bmi_types::ProjectId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// How the caller proved who it is.
    CallerKind {
        /// The token made at first start.
        LocalAdmin = "local-admin",
        /// A session that began with a sign-in.
        Session = "session",
        /// An access token of an identity provider.
        AccessToken = "access-token",
        /// A token of a service account.
        ServiceAccount = "service-account",
    }
}

/// The caller, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// A stable name of the caller.
    pub subject: String,
    /// A name for people.
    pub display: String,
    /// How it proved that.
    pub kind: CallerKind,
    /// Its groups: what is bound to them holds for the caller too.
    pub groups: Vec<String>,
    /// Its roles, with where they hold.
    pub roles: Vec<WhoamiRole>,
}

/// A role of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoamiRole {
    /// Its name.
    pub role: String,
    /// The project in which it holds; everywhere when there is none.
    pub project: Option<ProjectId>,
}
