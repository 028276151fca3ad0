//! Roles: the built-in ones, and custom ones that platform admins make.

use std::collections::BTreeSet;

use bmi_api::{Code, Explanation, Fault, NewRole, Role, RolePatch, WhoamiRole};
use bmi_auth::policy::{Refusal, built_in_roles};
use bmi_auth::{Action, Caller, Decision, Domain, Permission, Subject};
use bmi_db::role::CustomRole;
use bmi_types::Timestamp;

use super::access::Access;
use super::{App, if_match, stale};
use crate::error::AppError;

/// The most custom roles: each permission is looked at for every decision.
const ROLES_MAX: usize = 64;
/// The most permissions of a role.
const PERMISSIONS_MAX: usize = 64;

fn shown(role: &CustomRole) -> Role {
    Role {
        name: role.name.clone(),
        description: role.description.clone(),
        permissions: role.permissions.iter().map(ToString::to_string).collect(),
        built_in: false,
        created_at: Some(role.created_at),
        version: role.version,
    }
}

fn built_in() -> Vec<Role> {
    let roles = built_in_roles().into_iter().map(|(name, permissions)| Role {
        name,
        description: String::new(),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        built_in: true,
        created_at: None,
        version: 0,
    });
    roles.collect()
}

/// Lists all roles: the built-in ones first. There are few.
pub async fn role_list(app: &App, caller: &Caller) -> Result<Vec<Role>, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::RoleRead)?;
        let mut roles = built_in();
        roles.extend(bmi_db::role::all(access)?.iter().map(shown));
        Ok(roles)
    })
    .await
}

/// Shows a role.
pub async fn role_show(app: &App, caller: &Caller, name: String) -> Result<Role, AppError> {
    app.reading(caller, move |access| {
        access.where_allowed(Action::RoleRead)?;
        if let Some(role) = built_in().into_iter().find(|role| role.name == name) {
            return Ok(role);
        }
        Ok(shown(&bmi_db::role::find(access, &name)?.ok_or_else(AppError::not_found)?))
    })
    .await
}

/// Reads permissions; each that is none is a fault.
fn permissions(texts: &[String]) -> Result<BTreeSet<Permission>, AppError> {
    let mut faults = Vec::new();
    let mut read = BTreeSet::new();
    if texts.is_empty() || texts.len() > PERMISSIONS_MAX {
        let detail = format!("a role has 1 to {PERMISSIONS_MAX} permissions, not {}", texts.len());
        faults.push(Fault { field: "permissions".to_owned(), detail });
    }
    for (position, text) in texts.iter().take(PERMISSIONS_MAX).enumerate() {
        match text.parse() {
            Ok(permission) => drop(read.insert(permission)),
            Err(error) => {
                let field = format!("permissions[{position}]");
                faults.push(Fault { field, detail: bmi_types::chain(&error) });
            }
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(AppError::invalid(faults)) }
}

fn custom(access: &mut Access<'_, '_>, name: &str) -> Result<CustomRole, AppError> {
    if built_in_roles().contains_key(name) {
        return Err(AppError::refused(
            Code::WrongState,
            format!("role `{name}` is built in and stays as it is"),
        ));
    }
    bmi_db::role::find(access, name)?.ok_or_else(AppError::not_found)
}

/// Makes a custom role.
pub async fn role_create(app: &App, caller: &Caller, new: NewRole) -> Result<Role, AppError> {
    let role = app
        .changing(caller, move |access| {
            access.permit_everywhere(Action::RoleWrite)?;
            let permissions = permissions(&new.permissions)?;
            let name = new.name.to_string();
            if built_in_roles().contains_key(&name) || bmi_db::role::find(access, &name)?.is_some() {
                return Err(AppError::refused(Code::Duplicate, format!("a role called `{name}` exists")));
            }
            if bmi_db::role::all(access)?.len() >= ROLES_MAX {
                let detail = format!("there are {ROLES_MAX} custom roles already; remove one first");
                return Err(AppError::refused(Code::WrongState, detail));
            }
            let description = new.description;
            let role =
                CustomRole { name, description, permissions, created_at: Timestamp::now(), version: 1 };
            bmi_db::role::insert(access, &role)?;
            let role = shown(&role);
            access.did_to("role", &role.name, &role.name, role.permissions.join(" "));
            Ok(role)
        })
        .await?;
    app.policy_changed().await?;
    Ok(role)
}

/// Changes a custom role, for everybody who has it.
pub async fn role_update(
    app: &App,
    caller: &Caller,
    name: String,
    patch: RolePatch,
    version: Option<i64>,
) -> Result<Role, AppError> {
    let role = app
        .changing(caller, move |access| {
            access.permit_everywhere(Action::RoleWrite)?;
            let mut role = custom(access, &name)?;
            if_match(version, role.version)?;
            if let Some(texts) = &patch.permissions {
                role.permissions = permissions(texts)?;
            }
            role.description = patch.description.unwrap_or(role.description);
            if !bmi_db::role::update(access, &role)? {
                return Err(stale(role.version));
            }
            role.version += 1;
            let role = shown(&role);
            access.did_to("role", &role.name, &role.name, role.permissions.join(" "));
            Ok(role)
        })
        .await?;
    app.policy_changed().await?;
    Ok(role)
}

/// Removes a custom role that nobody has.
pub async fn role_delete(
    app: &App,
    caller: &Caller,
    name: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::RoleWrite)?;
        let role = custom(access, &name)?;
        if_match(version, role.version)?;
        let bound = bmi_db::binding::count_of_role(access, &name)?;
        if bound > 0 {
            let detail = format!("{bound} members have role `{name}`; take it away from them first");
            return Err(AppError::refused(Code::InUse, detail));
        }
        access.did("role", &name, &name);
        Ok(bmi_db::role::delete(access, &name)?)
    })
    .await?;
    app.policy_changed().await
}

/// A question to the policy.
#[derive(Debug, Clone)]
pub struct Question {
    /// Of whom; the caller itself when there is none.
    pub subject: Option<String>,
    /// Groups that the subject is in, for somebody else than the caller.
    pub groups: Vec<String>,
    /// What.
    pub action: String,
    /// In which project; everywhere when there is none.
    pub project: Option<String>,
}

/// Tells whether something is allowed, and which rule decides that.
pub async fn policy_explain(app: &App, caller: &Caller, question: Question) -> Result<Explanation, AppError> {
    app.reading(caller, move |access| {
        let domain = match &question.project {
            Some(text) => access.enter(text, Action::PolicyRead)?.into(),
            None => {
                access.permit_everywhere(Action::PolicyRead)?;
                Domain::Everywhere
            }
        };
        let Some(action) = Action::from_word(&question.action) else {
            let detail = format!("`{}` is not an action, such as `image:write`", question.action);
            return Err(AppError::invalid(vec![Fault { field: "action".to_owned(), detail }]));
        };
        let of = match question.subject {
            None => access.caller().clone(),
            Some(subject) => Caller {
                subject: Subject::known(subject),
                groups: question.groups.into_iter().map(Subject::known).collect(),
                limits: None,
                ..access.caller().clone()
            },
        };
        let policy = access.policy();
        let decision = policy.decide(&of, action, domain);
        // Only what holds in the place that the caller may ask about.
        let roles = policy
            .roles_of(&of)
            .into_iter()
            .filter(|(place, _)| *place == domain || *place == Domain::Everywhere);
        let roles = roles.map(|(place, role)| WhoamiRole {
            role,
            project: match place {
                Domain::Everywhere => None,
                Domain::Project(id) => Some(id),
            },
        });
        let place = |domain: Domain| match domain {
            Domain::Everywhere => "everywhere".to_owned(),
            Domain::Project(id) => format!("in project {id}"),
        };
        let (rule, reason) = match decision {
            Decision::Allowed(rule) => {
                let reason = format!(
                    "role `{}` of {}, bound {}, permits {}",
                    rule.role,
                    rule.subject,
                    place(rule.domain),
                    rule.permission
                );
                (Some(rule), reason)
            }
            Decision::Refused(Refusal::NoRole) => {
                (None, format!("no role of it {} permits {action}", place(domain)))
            }
            Decision::Refused(Refusal::OutOfScope) => (None, "the token's scopes do not have it".to_owned()),
            Decision::Refused(Refusal::OtherProject) => (None, "the token is of another project".to_owned()),
        };
        Ok(Explanation {
            subject: of.subject.to_string(),
            action: action.to_string(),
            project: match domain {
                Domain::Everywhere => None,
                Domain::Project(id) => Some(id.to_string()),
            },
            allowed: rule.is_some(),
            reason,
            by_subject: rule.as_ref().map(|rule| rule.subject.to_string()),
            by_role: rule.as_ref().map(|rule| rule.role.clone()),
            by_permission: rule.as_ref().map(|rule| rule.permission.to_string()),
            roles: roles.collect(),
        })
    })
    .await
}
