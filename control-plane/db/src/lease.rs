//! Leases: what only one replica does at a time.

use std::time::Duration;

use bmi_types::Timestamp;
use diesel::prelude::*;

use crate::DbError;
use crate::schema::leases;
use crate::scope::SystemTx;

/// Takes a lease or renews it; answers false while somebody else holds it.
pub fn hold(
    tx: &mut SystemTx<'_>,
    name: &str,
    holder: &str,
    now: Timestamp,
    term: Duration,
) -> Result<bool, DbError> {
    let until = now.plus(term).micros();
    let known: Option<(String, i64)> = leases::table
        .filter(leases::name.eq(name))
        .select((leases::holder, leases::held_until))
        .first(tx.sql())
        .optional()?;
    match known {
        None => {
            let row = (leases::name.eq(name), leases::holder.eq(holder), leases::held_until.eq(until));
            diesel::insert_into(leases::table).values(row).execute(tx.sql())?;
            Ok(true)
        }
        Some((other, held_until)) if other != holder && held_until > now.micros() => Ok(false),
        Some(_) => {
            diesel::update(leases::table.filter(leases::name.eq(name)))
                .set((leases::holder.eq(holder), leases::held_until.eq(until)))
                .execute(tx.sql())?;
            Ok(true)
        }
    }
}
