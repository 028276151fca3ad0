//! The session that began last at an instance's target.

use bmi_types::{InstanceId, Timestamp};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::sessions;
use crate::{DbError, SystemTx};

/// Writes that a session has begun, over the one before.
pub fn begin(
    tx: &mut SystemTx<'_>,
    instance: InstanceId,
    at: Timestamp,
    statistics: &str,
) -> Result<(), DbError> {
    let values = (sessions::began_at.eq(at.micros()), sessions::statistics.eq(statistics));
    let mine = sessions::table.filter(sessions::instance_id.eq(Key::from(instance)));
    if diesel::update(mine).set(values).execute(tx.sql())? == 0 {
        let new = (sessions::instance_id.eq(Key::from(instance)), values.0, values.1);
        diesel::insert_into(sessions::table).values(new).execute(tx.sql())?;
    }
    Ok(())
}

/// Writes what the session has asked for. A session whose beginning was not told has none.
pub fn statistics(tx: &mut SystemTx<'_>, instance: InstanceId, statistics: &str) -> Result<(), DbError> {
    let mine = sessions::table.filter(sessions::instance_id.eq(Key::from(instance)));
    diesel::update(mine).set(sessions::statistics.eq(statistics)).execute(tx.sql())?;
    Ok(())
}
