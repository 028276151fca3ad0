//! Who is calling.

use bmi_api::{CallerKind, Whoami};
use bmi_auth::Caller;

/// Describes the caller.
#[must_use]
pub fn whoami(caller: &Caller) -> Whoami {
    Whoami {
        subject: caller.subject.to_string(),
        kind: CallerKind::LocalAdmin,
        roles: vec!["platform-admin".to_owned()],
    }
}
