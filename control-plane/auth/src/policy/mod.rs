//! Who may do what: Casbin, with role templates from `policies/` and bindings from wherever its adapter reads them.
//!
//! ```text
//! action.rs  everything that can be allowed
//! judges.rs  Casbin, once for each role
//! ```
//!
//! A [`Policy`] is a snapshot that never changes; a new one replaces it. Decisions take no lock and ask nobody.
//!
//! Deliberately absent: what belongs to whom. The policy knows roles and domains; that an image is in a project is
//! the data layer's, which finds nothing outside of the caller's scope.
//!
//! Invariants: the policy rules do not grow with projects; whoever has no binding in a domain is refused there; nothing
//! is allowed that Casbin does not allow; a decision takes as long with 10 000 bindings as with ten.

mod action;
mod judges;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bmi_types::ProjectId;
use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, MgmtApi};

use crate::{Caller, Subject};
use judges::Judges;

pub use action::{Action, Permission, PermissionError};

const MODEL: &str = include_str!("../../../../policies/model.conf");
const ROLES: &str = include_str!("../../../../policies/roles.csv");

/// The name of the domain that is everywhere.
const EVERYWHERE: &str = "*";

/// Where an action happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// At the provider: nodes, networks, and all projects.
    Everywhere,
    /// In one project.
    Project(ProjectId),
}

impl Domain {
    /// As the policy has it.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::Everywhere => EVERYWHERE.to_owned(),
            Self::Project(id) => id.to_string(),
        }
    }
}

/// Which projects somebody may see at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them: for the provider's own people.
    Everything,
    /// These.
    Projects(Vec<ProjectId>),
}

/// A subject's role in a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Whose.
    pub subject: Subject,
    /// Which role.
    pub role: String,
    /// Where.
    pub domain: Domain,
}

impl Binding {
    /// The rule of the policy that it is.
    #[must_use]
    pub fn rule(&self) -> Vec<String> {
        vec![self.subject.to_string(), self.role.clone(), self.domain.word()]
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the policy cannot be loaded")]
pub struct PolicyError(#[from] casbin::Error);

/// What allowed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose binding: the caller's own, or that of a group.
    pub subject: Subject,
    /// The role.
    pub role: String,
    /// The permission of the role.
    pub permission: Permission,
    /// Where the role is bound.
    pub domain: Domain,
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No role of the caller, here or everywhere, has the permission.
    NoRole,
    /// The caller's token is limited to other actions.
    OutOfScope,
    /// The caller's token is limited to another project.
    OtherProject,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, by this rule.
    Allowed(Rule),
    /// Refused.
    Refused(Refusal),
}

/// The permissions of the built-in roles: those that `policies/roles.csv` has.
#[must_use]
pub fn built_in_roles() -> BTreeMap<String, BTreeSet<Permission>> {
    let mut roles: BTreeMap<String, BTreeSet<Permission>> = BTreeMap::new();
    for line in ROLES.lines() {
        let mut parts = line.split(',').map(str::trim);
        if let (Some("p"), Some(role), Some(object), Some(act), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        {
            roles.entry(role.to_owned()).or_default().insert(Permission::of(object, act));
        }
    }
    roles
}

/// A snapshot of the policy.
pub struct Policy {
    judges: Judges,
    roles: BTreeMap<String, BTreeSet<Permission>>,
    /// Every subject's roles, by where they hold.
    bound: HashMap<Subject, BTreeMap<Domain, Vec<String>>>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Policy({} roles, {} subjects)", self.roles.len(), self.bound.len())
    }
}

impl Policy {
    /// Loads a policy through an adapter, which gives the rules of every role and the bindings.
    ///
    /// # Errors
    /// When the adapter fails.
    pub async fn load(adapter: impl Adapter + 'static) -> Result<Self, PolicyError> {
        let model = DefaultModel::from_str(MODEL).await?;
        let enforcer = Enforcer::new(model, adapter).await?;
        let mut roles: BTreeMap<String, BTreeSet<Permission>> = BTreeMap::new();
        for rule in enforcer.get_policy() {
            if let [role, object, act] = rule.as_slice() {
                roles.entry(role.clone()).or_default().insert(Permission::of(object, act));
            }
        }
        let mut bound: HashMap<Subject, BTreeMap<Domain, Vec<String>>> = HashMap::new();
        for rule in enforcer.get_grouping_policy() {
            if let [subject, role, domain] = rule.as_slice() {
                let domain = match domain.parse() {
                    Ok(id) => Domain::Project(id),
                    Err(_) if domain == EVERYWHERE => Domain::Everywhere,
                    // No request is ever about such a place.
                    Err(_) => continue,
                };
                let of_subject = bound.entry(Subject::known(subject.clone())).or_default();
                of_subject.entry(domain).or_default().push(role.clone());
            }
        }
        Ok(Self { judges: Judges::of(&enforcer).await?, roles, bound })
    }

    /// Decides whether a caller may do something somewhere.
    #[must_use]
    pub fn decide(&self, caller: &Caller, action: Action, domain: Domain) -> Decision {
        if let Some(limits) = &caller.limits {
            if domain != Domain::Project(limits.project) {
                return Decision::Refused(Refusal::OtherProject);
            }
            let within = limits
                .scopes
                .iter()
                .any(|scope| scope.parse::<Permission>().is_ok_and(|permission| permission.allows(action)));
            if !within {
                return Decision::Refused(Refusal::OutOfScope);
            }
        }
        let allowing = caller.subjects().find_map(|subject| self.rule(subject, action, domain));
        allowing.map_or(Decision::Refused(Refusal::NoRole), Decision::Allowed)
    }

    /// The rule by which something is allowed: of the first of the subject's roles, here before everywhere, with a
    /// permission for the action, and whose judge allows it.
    fn rule(&self, subject: &Subject, action: Action, domain: Domain) -> Option<Rule> {
        let bound = self.bound.get(subject)?;
        let place = |domain: Domain| bound.get(&domain).into_iter().flatten().map(move |role| (role, domain));
        let everywhere = place(Domain::Everywhere).filter(|_| domain != Domain::Everywhere);
        place(domain).chain(everywhere).find_map(|(role, domain)| {
            // Roles without such a permission need no judge: of a caller's many, few have it.
            let permission = self.roles.get(role)?.iter().find(|permission| permission.allows(action))?;
            self.judges.allow(subject, role, domain, action).then(|| Rule {
                subject: subject.clone(),
                role: role.clone(),
                permission: permission.clone(),
                domain,
            })
        })
    }

    /// Whether a caller may do something somewhere.
    #[must_use]
    pub fn allows(&self, caller: &Caller, action: Action, domain: Domain) -> bool {
        matches!(self.decide(caller, action, domain), Decision::Allowed(_))
    }

    /// Which projects a caller may see at all: all with any role that holds everywhere, else those with a role.
    #[must_use]
    pub fn scope(&self, caller: &Caller) -> Scope {
        if let Some(limits) = &caller.limits {
            return Scope::Projects(vec![limits.project]);
        }
        let mut projects = BTreeSet::new();
        let bound = caller.subjects().filter_map(|subject| self.bound.get(subject));
        for domain in bound.flat_map(BTreeMap::keys) {
            match domain {
                Domain::Everywhere => return Scope::Everything,
                Domain::Project(id) => {
                    projects.insert(*id);
                }
            }
        }
        Scope::Projects(projects.into_iter().collect())
    }

    /// The roles of a caller, with where they hold.
    #[must_use]
    pub fn roles_of(&self, caller: &Caller) -> BTreeSet<(Domain, String)> {
        let bound = caller.subjects().filter_map(|subject| self.bound.get(subject)).flatten();
        bound.flat_map(|(domain, roles)| roles.iter().map(|role| (*domain, role.clone()))).collect()
    }

    /// Every role and what it permits.
    #[must_use]
    pub const fn roles(&self) -> &BTreeMap<String, BTreeSet<Permission>> {
        &self.roles
    }
}
