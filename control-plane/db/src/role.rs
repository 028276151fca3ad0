//! Custom roles. The built-in ones are files.

use std::collections::BTreeSet;

use bmi_auth::Permission;
use bmi_types::Timestamp;
use diesel::prelude::*;

use crate::key::readable;
use crate::schema::{policy_version, roles};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = roles)]
struct Row {
    name: String,
    description: String,
    permissions: String,
    created_at: i64,
    version: i64,
}

/// A custom role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRole {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What it permits.
    pub permissions: BTreeSet<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with each change.
    pub version: i64,
}

impl Row {
    fn read(self) -> Result<CustomRole, DbError> {
        let words: Vec<String> =
            readable("roles", "permissions", &self.permissions, serde_json::from_str(&self.permissions))?;
        // A permission of a newer release is passed over by an older one: it cannot do that anyway.
        let permissions = words.iter().filter_map(|word| word.parse().ok()).collect();
        Ok(CustomRole {
            name: self.name,
            description: self.description,
            permissions,
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }

    fn write(role: &CustomRole) -> Self {
        let words: Vec<String> = role.permissions.iter().map(ToString::to_string).collect();
        Self {
            name: role.name.clone(),
            description: role.description.clone(),
            permissions: serde_json::json!(words).to_string(),
            created_at: role.created_at.micros(),
            version: role.version,
        }
    }
}

/// Every custom role, by name. There are few.
pub fn all(tx: &mut Tx<'_>) -> Result<Vec<CustomRole>, DbError> {
    let rows: Vec<Row> = roles::table.order(roles::name.asc()).load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// Finds a custom role.
pub fn find(tx: &mut Tx<'_>, name: &str) -> Result<Option<CustomRole>, DbError> {
    // Nothing is called so, and PostgreSQL cannot be asked for it.
    if name.contains('\0') {
        return Ok(None);
    }
    let row: Option<Row> = roles::table.filter(roles::name.eq(name)).first(tx.sql()).optional()?;
    row.map(Row::read).transpose()
}

/// Writes a new role.
pub fn insert(tx: &mut Tx<'_>, role: &CustomRole) -> Result<(), DbError> {
    diesel::insert_into(roles::table).values(&Row::write(role)).execute(tx.sql())?;
    policy_changed(tx)
}

/// Writes a changed role under its next version; answers false when it had been changed in between.
pub fn update(tx: &mut Tx<'_>, role: &CustomRole) -> Result<bool, DbError> {
    let row = Row::write(role);
    let mine = roles::table.filter(roles::name.eq(&role.name)).filter(roles::version.eq(role.version));
    let changed = diesel::update(mine)
        .set((
            roles::description.eq(row.description),
            roles::permissions.eq(row.permissions),
            roles::version.eq(role.version + 1),
        ))
        .execute(tx.sql())?;
    policy_changed(tx)?;
    Ok(changed == 1)
}

/// Removes a role.
pub fn delete(tx: &mut Tx<'_>, name: &str) -> Result<(), DbError> {
    diesel::delete(roles::table.filter(roles::name.eq(name))).execute(tx.sql())?;
    policy_changed(tx)
}

/// Tells every replica to load the policy again.
pub fn policy_changed(tx: &mut Tx<'_>) -> Result<(), DbError> {
    diesel::update(policy_version::table)
        .set(policy_version::version.eq(policy_version::version + 1))
        .execute(tx.sql())?;
    Ok(())
}

/// The version of the policy.
pub fn policy_version(tx: &mut Tx<'_>) -> Result<i64, DbError> {
    Ok(policy_version::table.select(policy_version::version).first(tx.sql())?)
}
