//! Service accounts: programs that call, each in one project and limited to its scopes.
//!
//! Invariants: a token is shown once and kept by its hash; nobody gives an account a role, or takes a token or wider scopes
//! of one, with a role that permits what he may not do himself; a token ends, at the latest after what the configuration allows.

use std::time::Duration;

use bmi_api::{
    Code, Fault, NewServiceAccount, NewServiceToken, ServiceAccount, ServiceAccountPatch,
    ServiceAccountWithToken,
};
use bmi_auth::secret_token::{self, TokenKind};
use bmi_auth::{Action, Caller, Permission, Subject};
use bmi_db::binding::{self, Place};
use bmi_db::{After, InProject, Reference, service_account as db};
use bmi_types::{Secret, ServiceAccountId, ServiceTokenId, Timestamp};

use super::access::Access;
use super::member::may_give;
use super::{App, if_match, reference, stale};
use crate::error::AppError;

/// The most accounts of a project.
const ACCOUNTS_MAX: i64 = 100;
/// The most scopes of an account.
const SCOPES_MAX: usize = 64;
/// The most tokens of an account that have not expired: the newest, and those that a rotation lets live on.
const TOKENS_MAX: usize = 8;
/// The longest that tokens live on after a rotation, in seconds: 30 days.
const OVERLAP_MAX_S: u32 = 30 * 24 * 60 * 60;
const DAY_S: u64 = 24 * 60 * 60;

/// What is wrong with scopes.
#[must_use]
pub fn scope_faults(scopes: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if scopes.is_empty() || scopes.len() > SCOPES_MAX {
        let detail = format!("has 1 to {SCOPES_MAX} entries, not {}", scopes.len());
        faults.push(Fault { field: "scopes".to_owned(), detail });
    }
    for (position, scope) in scopes.iter().take(SCOPES_MAX).enumerate() {
        if let Err(error) = scope.parse::<Permission>() {
            faults.push(Fault { field: format!("scopes[{position}]"), detail: error.to_string() });
        }
    }
    faults
}

/// What is wrong with how long a token is to last.
#[must_use]
pub fn expiry_faults(app: &App, days: u32) -> Vec<Fault> {
    let longest = app.authentication.service_token_max_days;
    if (1..=longest).contains(&days) {
        return Vec::new();
    }
    vec![Fault { field: "expires_days".to_owned(), detail: format!("must be 1 to {longest}") }]
}

/// What is wrong with how long tokens are to live on.
#[must_use]
pub fn overlap_faults(seconds: u32) -> Vec<Fault> {
    if seconds <= OVERLAP_MAX_S {
        return Vec::new();
    }
    vec![Fault { field: "overlap_s".to_owned(), detail: format!("must be 0 to {OVERLAP_MAX_S}") }]
}

fn find(access: &mut Access<'_, '_>, project: InProject, text: &str) -> Result<ServiceAccount, AppError> {
    db::find(access, project, &reference(text)?, Timestamp::now())?.ok_or_else(AppError::not_found)
}

/// Refuses to put what an account may do into the hands of a caller who may not do it: wider scopes and new tokens do
/// that, as giving its role does.
fn may_have(access: &mut Access<'_, '_>, place: InProject, account: &ServiceAccount) -> Result<(), AppError> {
    let itself = Caller { subject: Subject::service_account(account.id.uuid()), ..Caller::local_admin() };
    let roles = access.policy().roles_of(&itself);
    roles.iter().try_for_each(|(_, role)| may_give(access, role, Place::Project(place)))
}

fn new_token() -> Result<Secret, AppError> {
    secret_token::generate(TokenKind::ServiceAccount).map_err(|error| AppError::Defect(error.to_string()))
}

/// Lists the accounts of a project.
pub async fn service_account_list(
    app: &App,
    caller: &Caller,
    project: String,
    after: After,
) -> Result<Vec<ServiceAccount>, AppError> {
    app.reading(caller, move |access| {
        let project = access.enter(&project, Action::ServiceAccountRead)?;
        Ok(db::list(access, project, after, Timestamp::now())?)
    })
    .await
}

/// Shows an account.
pub async fn service_account_show(
    app: &App,
    caller: &Caller,
    project: String,
    account: String,
) -> Result<ServiceAccount, AppError> {
    app.reading(caller, move |access| {
        let project = access.enter(&project, Action::ServiceAccountRead)?;
        find(access, project, &account)
    })
    .await
}

/// Creates an account with a role and a first token.
pub async fn service_account_create(
    app: &App,
    caller: &Caller,
    project: String,
    new: NewServiceAccount,
) -> Result<ServiceAccountWithToken, AppError> {
    let token = new_token()?;
    let sha256 = secret_token::hash(token.expose());
    let lasts = Duration::from_secs(u64::from(new.expires_days) * DAY_S);
    let account = app
        .changing(caller, move |access| {
            // Its role makes it a member.
            let place = access.enter(&project, Action::MemberWrite)?;
            access.permit(Action::ServiceAccountWrite, place.into())?;
            if !access.policy().roles().contains_key(&new.role) {
                let detail = format!("there is no role `{}`; `bmi role list` shows them", new.role);
                return Err(AppError::invalid(vec![Fault { field: "role".to_owned(), detail }]));
            }
            may_give(access, &new.role, Place::Project(place))?;
            if db::find(access, place, &Reference::Name(new.name.clone()), Timestamp::now())?.is_some() {
                let detail = format!("a service account called `{}` exists", new.name);
                return Err(AppError::refused(Code::Duplicate, detail));
            }
            if db::count(access, place)? >= ACCOUNTS_MAX {
                let detail = format!("the project has {ACCOUNTS_MAX} service accounts already");
                return Err(AppError::refused(Code::WrongState, detail));
            }
            let (now, by) = (Timestamp::now(), access.caller().subject.to_string());
            let mut account = ServiceAccount {
                id: ServiceAccountId::generate(),
                name: new.name,
                project: place.id(),
                description: new.description,
                scopes: new.scopes,
                tokens: Vec::new(),
                created_by: by.clone(),
                created_at: now,
                version: 1,
            };
            db::insert(access, place, &account)?;
            account.tokens.push(db::token_insert(access, account.id, &sha256, now, now.plus(lasts))?);
            let subject = Subject::service_account(account.id.uuid());
            binding::insert(access, Place::Project(place), &subject, &new.role, &by, now)?;
            access.did_to("service-account", account.id, &account.name, format!("role {}", new.role));
            Ok(account)
        })
        .await?;
    app.policy_changed().await?;
    Ok(ServiceAccountWithToken { account, token })
}

/// Changes an account.
pub async fn service_account_update(
    app: &App,
    caller: &Caller,
    path: (String, String),
    patch: ServiceAccountPatch,
    version: Option<i64>,
) -> Result<ServiceAccount, AppError> {
    app.changing(caller, move |access| {
        let place = access.enter(&path.0, Action::ServiceAccountWrite)?;
        let mut account = find(access, place, &path.1)?;
        if_match(version, account.version)?;
        if patch.scopes.is_some() {
            may_have(access, place, &account)?;
        }
        if let Some(description) = patch.description {
            account.description = description;
        }
        if let Some(scopes) = patch.scopes {
            account.scopes = scopes;
        }
        if !db::update(access, place, &account)? {
            return Err(stale(account.version));
        }
        account.version += 1;
        access.did("service-account", account.id, &account.name);
        Ok(account)
    })
    .await
}

/// Deletes an account, its tokens and its roles.
pub async fn service_account_delete(
    app: &App,
    caller: &Caller,
    project: String,
    account: String,
    version: Option<i64>,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        let place = access.enter(&project, Action::ServiceAccountWrite)?;
        let account = find(access, place, &account)?;
        if_match(version, account.version)?;
        binding::delete_of(access, &Subject::service_account(account.id.uuid()))?;
        db::delete(access, place, account.id)?;
        access.did("service-account", account.id, &account.name);
        Ok(())
    })
    .await?;
    app.policy_changed().await
}

/// Makes a new token, and lets those before it end.
pub async fn service_account_rotate(
    app: &App,
    caller: &Caller,
    project: String,
    account: String,
    new: NewServiceToken,
) -> Result<ServiceAccountWithToken, AppError> {
    let token = new_token()?;
    let sha256 = secret_token::hash(token.expose());
    let lasts = Duration::from_secs(u64::from(new.expires_days) * DAY_S);
    let overlap = Duration::from_secs(u64::from(new.overlap_s));
    let account = app
        .changing(caller, move |access| {
            let place = access.enter(&project, Action::ServiceAccountWrite)?;
            let account = find(access, place, &account)?;
            may_have(access, place, &account)?;
            let now = Timestamp::now();
            if new.overlap_s > 0 && account.tokens.len() >= TOKENS_MAX {
                let detail = format!("the account has {TOKENS_MAX} tokens that have not ended; revoke one");
                return Err(AppError::refused(Code::WrongState, detail));
            }
            db::tokens_end(access, account.id, now.plus(overlap))?;
            let made = db::token_insert(access, account.id, &sha256, now, now.plus(lasts))?;
            access.did_to("service-account", account.id, &account.name, format!("token {} made", made.id));
            find(access, place, &account.id.to_string())
        })
        .await?;
    Ok(ServiceAccountWithToken { account, token })
}

/// Ends a token at once.
pub async fn service_account_revoke(
    app: &App,
    caller: &Caller,
    project: String,
    account: String,
    token: String,
) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        let place = access.enter(&project, Action::ServiceAccountWrite)?;
        let account = find(access, place, &account)?;
        let token: ServiceTokenId = token.parse().map_err(|_| AppError::not_found())?;
        if !db::token_delete(access, account.id, token)? {
            return Err(AppError::not_found());
        }
        access.did_to("service-account", account.id, &account.name, format!("token {token} revoked"));
        Ok(())
    })
    .await
}
