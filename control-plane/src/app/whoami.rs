//! Who is calling.

use bmi_api::{CallerKind, Whoami, WhoamiRole};
use bmi_auth::{Caller, Domain, Proof};

use super::App;

/// Describes the caller.
#[must_use]
pub fn whoami(app: &App, caller: &Caller) -> Whoami {
    let roles = app.policies.current().roles_of(caller);
    Whoami {
        subject: caller.subject.to_string(),
        display: caller.display.clone(),
        kind: match caller.proof {
            Proof::LocalAdmin => CallerKind::LocalAdmin,
            Proof::Session => CallerKind::Session,
            Proof::AccessToken => CallerKind::AccessToken,
            Proof::ServiceToken => CallerKind::ServiceAccount,
        },
        groups: caller.groups.iter().map(ToString::to_string).collect(),
        roles: roles
            .into_iter()
            .map(|(domain, role)| WhoamiRole {
                role,
                project: match domain {
                    Domain::Everywhere => None,
                    Domain::Project(id) => Some(id),
                },
            })
            .collect(),
    }
}
