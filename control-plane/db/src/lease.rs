//! What only one replica does at a time: the reconciler, for example.
//!
//! Invariant: whoever was told that it has a lease has it until the time it was told, by its own clock. Replicas' clocks
//! must agree to within a few seconds, much less than a lease lasts.

use std::time::Duration;

use bmi_types::Timestamp;
use diesel::prelude::*;

use crate::schema::leases;
use crate::{DbError, SystemTx, idempotency, journal, upload};

/// Takes a lease that nobody holds or prolongs one's own; answers whether one has it now.
pub fn hold(
    tx: &mut SystemTx<'_>,
    name: &str,
    holder: &str,
    now: Timestamp,
    term: Duration,
) -> Result<bool, DbError> {
    let values = (leases::holder.eq(holder), leases::held_until.eq(now.plus(term).micros()));
    let held: Option<(String, i64)> = leases::table
        .filter(leases::name.eq(name))
        .select((leases::holder, leases::held_until))
        .first(tx.sql())
        .optional()?;
    match held {
        Some((other, until)) if other != holder && until > now.micros() => Ok(false),
        Some(_) => {
            diesel::update(leases::table.filter(leases::name.eq(name))).set(values).execute(tx.sql())?;
            Ok(true)
        }
        None => {
            let new = (leases::name.eq(name), values.0, values.1);
            diesel::insert_into(leases::table).values(new).execute(tx.sql())?;
            Ok(true)
        }
    }
}

/// Gives back one's own lease.
pub fn give_back(tx: &mut SystemTx<'_>, name: &str, holder: &str) -> Result<(), DbError> {
    let mine = leases::table.filter(leases::name.eq(name)).filter(leases::holder.eq(holder));
    diesel::delete(mine).execute(tx.sql())?;
    Ok(())
}

/// Ends whatever is held or running, of every kind: when nobody serves the database, and the next server is not to wait.
/// Whoever worked on an operation is fenced by the next claim of it.
pub fn end_all(tx: &mut SystemTx<'_>) -> Result<(), DbError> {
    diesel::delete(leases::table).execute(tx.sql())?;
    journal::leases_end(tx)?;
    idempotency::forget_running(tx)?;
    upload::end_all(tx)
}
