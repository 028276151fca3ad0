//! Members: who has which role in a project, or everywhere.
//!
//! Invariant: nobody gives or takes a role that permits more than it may do itself, there.

use bmi_api::{Code, Fault, Member, NewMember};
use bmi_auth::{Action, Caller, Domain, Subject};
use bmi_db::After;
use bmi_db::binding::{Place, Stored};
use bmi_types::Timestamp;
use uuid::Uuid;

use super::App;
use super::access::Access;
use crate::error::AppError;

/// The most members of a project, and the most of them everywhere.
const MEMBERS_MAX: i64 = 1000;
/// The longest subject, in characters: `sub` has at most 255 (OpenID Connect Core section 2).
const SUBJECT_MAX: usize = 512;

/// Letters that nobody sees, or that turn the order of others round.
const INVISIBLE: [char; 12] = [
    '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}',
    '\u{202d}', '\u{202e}', '\u{2060}', '\u{feff}',
];

fn shown(stored: Stored) -> Member {
    Member {
        id: stored.id,
        subject: stored.binding.subject.to_string(),
        role: stored.binding.role,
        created_at: stored.created_at,
        created_by: stored.created_by,
    }
}

/// What is wrong with a subject.
#[must_use]
pub fn subject_faults(subject: &str) -> Vec<Fault> {
    let parts: Vec<&str> = subject.splitn(3, ':').collect();
    let known = match parts.as_slice() {
        ["user" | "group", provider, rest] => !provider.is_empty() && !rest.is_empty(),
        ["service-account", id] => Uuid::try_parse(id).is_ok_and(|uuid| uuid.to_string() == *id),
        _ => false,
    };
    // Such a subject would look like another's and be nobody's.
    let plain = subject.chars().count() <= SUBJECT_MAX
        && subject.trim() == subject
        && !subject.chars().any(|letter| letter.is_control() || INVISIBLE.contains(&letter));
    if known && plain {
        return Vec::new();
    }
    let detail = "must be `user:<provider>:<sub>`, `group:<provider>:<value>` or `service-account:<id>`; \
                  `bmi whoami` shows one's own";
    vec![Fault { field: "subject".to_owned(), detail: detail.to_owned() }]
}

/// Enters the place whose members are meant.
fn enter(access: &mut Access<'_, '_>, project: Option<&str>, action: Action) -> Result<Place, AppError> {
    match project {
        Some(text) => access.enter(text, action).map(Place::Project),
        None => access.permit_everywhere(action).map(|()| Place::Everywhere),
    }
}

fn domain(place: Place) -> Domain {
    match place {
        Place::Everywhere => Domain::Everywhere,
        Place::Project(project) => project.into(),
    }
}

/// Refuses a role that permits what the caller may not do itself.
pub(crate) fn may_give(access: &mut Access<'_, '_>, role: &str, place: Place) -> Result<(), AppError> {
    let policy = std::sync::Arc::clone(access.policy());
    let Some(permissions) = policy.roles().get(role) else { return Ok(()) };
    let caller = access.caller().clone();
    let beyond = permissions
        .iter()
        .flat_map(bmi_auth::Permission::actions)
        .find(|action| !policy.allows(&caller, *action, domain(place)));
    match beyond {
        None => Ok(()),
        Some(action) => {
            let detail = format!("role `{role}` permits {action}, which you may not do yourself here");
            Err(access.refuse(Action::MemberWrite, domain(place), detail))
        }
    }
}

/// Lists the members of a project, or those who have a role everywhere.
pub async fn member_list(
    app: &App,
    caller: &Caller,
    project: Option<String>,
    after: After,
) -> Result<Vec<Member>, AppError> {
    app.reading(caller, move |access| {
        let place = enter(access, project.as_deref(), Action::MemberRead)?;
        Ok(bmi_db::binding::list(access, place, after)?.into_iter().map(shown).collect())
    })
    .await
}

/// Gives a role. One that the subject has already stays as it is.
pub async fn member_create(
    app: &App,
    caller: &Caller,
    project: Option<String>,
    new: NewMember,
) -> Result<Member, AppError> {
    let member = app
        .changing(caller, move |access| {
            let place = enter(access, project.as_deref(), Action::MemberWrite)?;
            let mut faults = subject_faults(&new.subject);
            if !access.policy().roles().contains_key(&new.role) {
                let detail = format!("there is no role `{}`; `bmi role list` shows them", new.role);
                faults.push(Fault { field: "role".to_owned(), detail });
            }
            if !faults.is_empty() {
                return Err(AppError::invalid(faults));
            }
            may_give(access, &new.role, place)?;
            let subject = Subject::known(new.subject);
            let detail = format!("role {}", new.role);
            if let Some(known) = bmi_db::binding::of(access, place, &subject, &new.role)? {
                access.did_to("member", known.id, &subject, detail);
                return Ok(shown(known));
            }
            if bmi_db::binding::count(access, place)? >= MEMBERS_MAX {
                let detail = format!("there are {MEMBERS_MAX} members already; bind a group instead");
                return Err(AppError::refused(Code::WrongState, detail));
            }
            let by = access.caller().subject.to_string();
            let now = Timestamp::now();
            let stored = bmi_db::binding::insert(access, place, &subject, &new.role, &by, now)?;
            access.did_to("member", stored.id, &subject, detail);
            Ok(shown(stored))
        })
        .await?;
    app.policy_changed().await?;
    Ok(member)
}

/// Takes a role away.
pub async fn member_delete(
    app: &App,
    caller: &Caller,
    project: Option<String>,
    member: String,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        let place = enter(access, project.as_deref(), Action::MemberWrite)?;
        let id = Uuid::try_parse(&member).map_err(|_| AppError::not_found())?;
        let found = bmi_db::binding::find(access, place, id)?.ok_or_else(AppError::not_found)?;
        may_give(access, &found.binding.role, place)?;
        let detail = format!("role {} taken away", found.binding.role);
        access.did_to("member", found.id, &found.binding.subject, detail);
        Ok(bmi_db::binding::delete(access, &found)?)
    })
    .await?;
    app.policy_changed().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_of_a_known_kind_and_never_the_name_of_a_role() {
        for good in
            ["user:corp:1", "group:corp:a b:c", "service-account:0193d3a0-0000-7000-8000-000000000000"]
        {
            assert_eq!(subject_faults(good), vec![], "{good}");
        }
        let long = format!("user:corp:{}", "x".repeat(600));
        for bad in [
            "",
            "local-admin",
            "platform-admin",
            "user:corp",
            "user::x",
            "group:corp:",
            "user:a:b\n",
            &long,
            "user:corp:ada ",
            "user:corp:a\u{202e}b",
        ] {
            assert_eq!(subject_faults(bad).len(), 1, "{bad}");
        }
    }
}
