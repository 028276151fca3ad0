//! Casbin's adapter: the built-in roles, custom roles and bindings of the database, and bindings of the configuration.
//!
//! Deliberately absent: writing. Roles and bindings are changed by the API, each in the transaction that also writes
//! the audit log; the policy is then loaded again.

use async_trait::async_trait;
use bmi_auth::policy::built_in_roles;
use bmi_auth::{Binding, Subject};
use casbin::error::{AdapterError, Error};
use casbin::{Adapter, Filter, Model, Result};

use crate::{Db, DbError, binding, role};

/// What follows from the configuration and not from the database.
#[derive(Debug, Clone)]
pub struct ConfiguredBinding {
    /// Whose.
    pub subject: Subject,
    /// Which role.
    pub role: String,
    /// The project's name; everywhere when there is none. A project that does not exist binds nothing.
    pub project: Option<bmi_types::Name>,
}

/// Reads the policy from a database.
pub struct PolicyAdapter {
    db: Db,
    configured: Vec<ConfiguredBinding>,
}

impl PolicyAdapter {
    /// The policy of a database, with what is configured.
    #[must_use]
    pub const fn new(db: Db, configured: Vec<ConfiguredBinding>) -> Self {
        Self { db, configured }
    }
}

fn failed(error: DbError) -> Error {
    AdapterError(Box::new(error)).into()
}

fn elsewhere<T>() -> Result<T> {
    Err(failed(DbError::Unavailable("roles and bindings are written through the API only".to_owned())))
}

#[async_trait]
impl Adapter for PolicyAdapter {
    async fn load_policy(&mut self, model: &mut dyn Model) -> Result<()> {
        let configured = self.configured.clone();
        let (custom, mut bindings) = self
            .db
            .system_read(move |tx| {
                let mut bindings = binding::all(tx)?;
                for one in configured {
                    let domain = match &one.project {
                        None => Some(bmi_auth::Domain::Everywhere),
                        Some(name) => crate::project::of_name(tx, name)?.map(bmi_auth::Domain::Project),
                    };
                    bindings.extend(domain.map(|domain| Binding {
                        subject: one.subject,
                        role: one.role,
                        domain,
                    }));
                }
                Ok::<_, DbError>((role::all(tx)?, bindings))
            })
            .await
            .map_err(failed)?;
        let mut roles = built_in_roles();
        // A built-in role cannot be made wider by a row of its name.
        for role in custom {
            roles.entry(role.name).or_insert(role.permissions);
        }
        for (role, permissions) in roles {
            for permission in permissions {
                let rule = vec![role.clone(), permission.object().to_owned(), permission.act().to_owned()];
                model.add_policy("p", "p", rule);
            }
        }
        bindings.sort();
        bindings.dedup();
        for binding in bindings {
            model.add_policy("g", "g", binding.rule());
        }
        Ok(())
    }

    async fn load_filtered_policy<'a>(&mut self, model: &mut dyn Model, _: Filter<'a>) -> Result<()> {
        self.load_policy(model).await
    }

    async fn save_policy(&mut self, _: &mut dyn Model) -> Result<()> {
        elsewhere()
    }

    async fn clear_policy(&mut self) -> Result<()> {
        elsewhere()
    }

    fn is_filtered(&self) -> bool {
        false
    }

    async fn add_policy(&mut self, _: &str, _: &str, _: Vec<String>) -> Result<bool> {
        elsewhere()
    }

    async fn add_policies(&mut self, _: &str, _: &str, _: Vec<Vec<String>>) -> Result<bool> {
        elsewhere()
    }

    async fn remove_policy(&mut self, _: &str, _: &str, _: Vec<String>) -> Result<bool> {
        elsewhere()
    }

    async fn remove_policies(&mut self, _: &str, _: &str, _: Vec<Vec<String>>) -> Result<bool> {
        elsewhere()
    }

    async fn remove_filtered_policy(&mut self, _: &str, _: &str, _: usize, _: Vec<String>) -> Result<bool> {
        elsewhere()
    }
}
