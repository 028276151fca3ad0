//! Casbin, once for each role.
//!
//! Casbin looks at every rule of its policy for every question, and through everybody in a domain for a subject that
//! it does not find there. So each role has an enforcer of its own, with the rules of that role only, and is asked
//! only about bindings that exist, in the domain where they hold. All of them share one set of bindings and one model:
//! a test compares what is decided with what one enforcer with all rules decides.
//!
//! Deliberately absent: which bindings there are to ask about; that is the snapshot's.

use std::collections::HashMap;

use casbin::{CoreApi, DefaultModel, Enforcer, MgmtApi, NullAdapter};

use super::{Action, Domain, MODEL, PolicyError};
use crate::Subject;

/// The judges of one snapshot, by role.
pub(super) struct Judges(HashMap<String, Enforcer>);

impl Judges {
    /// One for each role that an enforcer has rules of, with its bindings.
    pub(super) async fn of(whole: &Enforcer) -> Result<Self, PolicyError> {
        let model = DefaultModel::from_str(MODEL).await?;
        let mut judges: HashMap<String, Enforcer> = HashMap::new();
        for rule in whole.get_policy() {
            let Some(role) = rule.first() else { continue };
            if !judges.contains_key(role) {
                let mut judge = Enforcer::new_raw(model.clone(), NullAdapter).await?;
                // Else it would empty the bindings, which it shares.
                judge.enable_auto_build_role_links(false);
                judge.set_role_manager(whole.get_role_manager())?;
                judges.insert(role.clone(), judge);
            }
            if let Some(judge) = judges.get_mut(role) {
                judge.get_mut_model().add_policy("p", "p", rule);
            }
        }
        Ok(Self(judges))
    }

    /// Whether a subject's binding to a role in a domain allows something there.
    pub(super) fn allow(&self, subject: &Subject, role: &str, domain: Domain, action: Action) -> bool {
        // A role that is not there allows nothing.
        let Some(judge) = self.0.get(role) else { return false };
        let place = domain.word();
        let request = (subject.as_str(), place.as_str(), action.object(), action.act());
        judge.enforce(request).unwrap_or_else(|error| {
            tracing::error!(%error, "the policy could not decide");
            false
        })
    }
}
