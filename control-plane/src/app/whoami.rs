//! Who is calling.

use bmi_api::{CallerKind, Whoami};
use bmi_auth::Caller;

/// Describes the caller.
#[must_use]
pub fn whoami(caller: &Caller) -> Whoami {
    Whoami {
        subject: caller.subject().to_owned(),
        kind: CallerKind::LocalAdmin,
        roles: caller.roles().iter().map(|role| role.as_str().to_owned()).collect(),
    }
}
