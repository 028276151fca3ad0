//! A caller's way to the data: there is no other.
//!
//! [`App::reading`] and [`App::changing`] open a transaction in the caller's scope. Inside it, the caller is asked for
//! the right to each thing; what it may not see is not found. What was changed and what was refused is written to the
//! audit log, a change in its own transaction.
//!
//! Invariants: a transaction in which nothing was decided fails, so that nobody can forget to ask; a change that names
//! no object fails too, so that every one is in the audit log.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bmi_api::{Code, Project};
use bmi_auth::audit::{Object, Outcome, Record};
use bmi_auth::policy::Refusal;
use bmi_auth::{Action, Caller, Decision, Domain, Policy, Scope, Subject};
use bmi_db::{DbError, InProject, Tx};
use bmi_types::{ProjectId, Timestamp};
use uuid::Uuid;

use super::{App, reference};
use crate::error::AppError;

/// The longest detail of a line in the audit log, in characters.
const DETAIL_MAX: usize = 500;

/// A transaction of a caller.
pub struct Access<'a, 'c> {
    tx: &'a mut Tx<'c>,
    caller: Caller,
    policy: Arc<Policy>,
    /// The last thing that was allowed: what follows is done by it.
    allowed: Option<(Action, Domain)>,
    records: Vec<Record>,
}

impl<'c> Deref for Access<'_, 'c> {
    type Target = Tx<'c>;

    fn deref(&self) -> &Self::Target {
        self.tx
    }
}

impl DerefMut for Access<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.tx
    }
}

impl Access<'_, '_> {
    /// Who calls.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The policy that holds in this transaction.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    fn record(&self, action: Action, domain: Domain, object: Option<Object>, outcome: Outcome) -> Record {
        let project = match domain {
            Domain::Everywhere => None,
            Domain::Project(id) => Some(id),
        };
        Record {
            id: Uuid::now_v7(),
            at: Timestamp::now(),
            actor: self.caller.subject.to_string(),
            project,
            action: action.to_string(),
            object,
            outcome,
            request: self.caller.trace.request().to_owned(),
            detail: String::new(),
        }
    }

    /// Asks for the right to do something somewhere.
    pub(crate) fn permit(&mut self, action: Action, domain: Domain) -> Result<(), AppError> {
        match self.policy.decide(&self.caller, action, domain) {
            Decision::Allowed(_) => {
                self.caller.trace.allowed(action, domain);
                self.allowed = Some((action, domain));
                Ok(())
            }
            Decision::Refused(why) => {
                let denied = self.record(action, domain, None, Outcome::Denied);
                self.records.push(denied);
                let limited = match why {
                    Refusal::NoRole => "no role of yours allows it",
                    Refusal::OutOfScope => "the token's scopes do not have it",
                    Refusal::OtherProject => "the token is of another project",
                };
                Err(AppError::refused(Code::Forbidden, format!("you may not do this ({action}): {limited}")))
            }
        }
    }

    /// Refuses something for another reason than that no role has it, which is in the audit log as well.
    pub(crate) fn refuse(&mut self, action: Action, domain: Domain, detail: String) -> AppError {
        let mut denied = self.record(action, domain, None, Outcome::Denied);
        denied.detail = detail.chars().take(DETAIL_MAX).collect();
        self.records.push(denied);
        AppError::refused(Code::Forbidden, detail)
    }

    /// The projects in which the caller may do something that it may not do everywhere.
    fn projects_where(&self, action: Action) -> Vec<ProjectId> {
        let bound: Vec<ProjectId> = match self.policy.scope(&self.caller) {
            Scope::Projects(projects) => projects,
            Scope::Everything => self
                .policy
                .roles_of(&self.caller)
                .into_iter()
                .filter_map(|(domain, _)| match domain {
                    Domain::Project(id) => Some(id),
                    Domain::Everywhere => None,
                })
                .collect(),
        };
        let allows = |id: &ProjectId| self.policy.allows(&self.caller, action, Domain::Project(*id));
        bound.into_iter().filter(allows).collect()
    }

    /// Narrows the transaction to the projects in which the caller may do something, for what follows. It may be none.
    pub(crate) fn narrow_to(&mut self, action: Action) {
        if !self.policy.allows(&self.caller, action, Domain::Everywhere) {
            let allowed = self.projects_where(action);
            self.tx.narrow(&allowed);
        }
    }

    /// Asks for a right at the provider.
    pub(crate) fn permit_everywhere(&mut self, action: Action) -> Result<(), AppError> {
        self.permit(action, Domain::Everywhere)
    }

    /// Finds a project, and asks for the right to do something in it.
    pub(crate) fn project(&mut self, text: &str, action: Action) -> Result<(Project, InProject), AppError> {
        let found = bmi_db::project::find(self.tx, &reference(text)?)?.ok_or_else(AppError::not_found)?;
        self.permit(action, Domain::Project(found.1.id()))?;
        Ok(found)
    }

    /// The same, where only the place matters.
    pub(crate) fn enter(&mut self, text: &str, action: Action) -> Result<InProject, AppError> {
        self.project(text, action).map(|(_, place)| place)
    }

    /// Narrows the transaction to the projects in which the caller may do something, for what is listed across
    /// projects. Refuses when there is none.
    pub(crate) fn where_allowed(&mut self, action: Action) -> Result<(), AppError> {
        if self.policy.allows(&self.caller, action, Domain::Everywhere) {
            return self.permit_everywhere(action);
        }
        let allowed = self.projects_where(action);
        let Some(first) = allowed.first() else { return self.permit_everywhere(action) };
        self.permit(action, Domain::Project(*first))?;
        self.tx.narrow(&allowed);
        Ok(())
    }

    /// Says what was done, by the right that was last asked for.
    pub(crate) fn did(&mut self, kind: &str, id: impl ToString, name: impl ToString) {
        self.did_to(kind, id, name, String::new());
    }

    /// The same, with more about it. No secret.
    pub(crate) fn did_to(&mut self, kind: &str, id: impl ToString, name: impl ToString, detail: String) {
        let object = Object { kind: kind.to_owned(), id: id.to_string(), name: name.to_string() };
        if let Some((action, domain)) = self.allowed {
            let mut record = self.record(action, domain, Some(object), Outcome::Done);
            record.detail = detail.chars().take(DETAIL_MAX).collect();
            self.records.push(record);
        }
    }
}

/// How a transaction failed: with what is to be written although it did.
struct Failed {
    error: AppError,
    denied: Vec<Record>,
}

impl From<DbError> for Failed {
    fn from(error: DbError) -> Self {
        Self { error: error.into(), denied: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reading,
    Changing,
}

fn run<T>(
    tx: &mut Tx<'_>,
    caller: Caller,
    policy: Arc<Policy>,
    kind: Kind,
    work: impl FnOnce(&mut Access<'_, '_>) -> Result<T, AppError>,
) -> Result<T, Failed> {
    let mut access = Access { tx, caller, policy, allowed: None, records: Vec::new() };
    let result = work(&mut access);
    let Access { allowed, records, .. } = access;
    let (done, denied): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.outcome == Outcome::Done);
    let defect = |text: &str| AppError::Defect(text.to_owned());
    match result {
        Err(error) => Err(Failed { error, denied }),
        Ok(_) if allowed.is_none() => {
            Err(Failed { error: defect("nothing was decided in a transaction"), denied })
        }
        Ok(_) if kind == Kind::Changing && done.is_empty() => {
            Err(Failed { error: defect("a change named no object"), denied })
        }
        Ok(value) => {
            for record in &done {
                bmi_db::audit::insert(tx, record)?;
            }
            Ok(value)
        }
    }
}

impl App {
    /// Runs a transaction of a caller that only reads.
    ///
    /// # Errors
    /// Those of the closure, and when the database fails.
    pub async fn reading<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&mut Access<'_, '_>) -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let (subject, caller, policy) = (&caller.subject, caller.clone(), self.policies.current());
        let scope = policy.scope(&caller);
        let result = self.db.read(scope, move |tx| run(tx, caller, policy, Kind::Reading, work)).await;
        self.settle(subject, result).await
    }

    /// Runs a transaction of a caller that changes something, and says so in the audit log.
    ///
    /// # Errors
    /// Those of the closure, after which nothing has changed, and when the database fails.
    pub async fn changing<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&mut Access<'_, '_>) -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let (subject, caller, policy) = (&caller.subject, caller.clone(), self.policies.current());
        let scope = policy.scope(&caller);
        let result = self.db.write(scope, move |tx| run(tx, caller, policy, Kind::Changing, work)).await;
        self.settle(subject, result).await
    }

    /// Writes what was refused, and gives what the caller is told. Whoever is refused all the time is told to stop, and
    /// does not fill the log.
    async fn settle<T>(&self, subject: &Subject, result: Result<T, Failed>) -> Result<T, AppError> {
        let Failed { error, denied } = match result {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if !denied.is_empty() {
            // Each action has a count of its own: a flood of one hides no attempt at another.
            let attempt = denied.last().map(|record| format!("{subject} {}", record.action));
            if attempt.is_some_and(|attempt| self.rate_limit.denied(&attempt).is_err()) {
                tracing::warn!(%subject, %error, "refused too often; it is not written to the audit log");
                let detail = "too many of your requests were refused; try again later";
                return Err(AppError::refused(Code::TooManyRequests, detail));
            }
            let write = move |tx: &mut bmi_db::SystemTx<'_>| {
                denied.iter().try_for_each(|record| bmi_db::audit::insert(tx, record))
            };
            self.db.system_write::<_, DbError, _>(write).await?;
        }
        Err(error)
    }

    /// Asks for a right of a caller where no transaction is needed.
    pub(crate) async fn permit(
        &self,
        caller: &Caller,
        action: Action,
        domain: Domain,
    ) -> Result<(), AppError> {
        self.reading(caller, move |access| access.permit(action, domain)).await
    }
}
