//! The session that began last at an instance's target.

use bmi_types::{InstanceId, Timestamp};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::sessions;
use crate::{DbError, SystemTx};

/// Writes that a session has begun, over one from before. What is told late of an older one than the known is nothing new.
pub fn begin(
    tx: &mut SystemTx<'_>,
    instance: InstanceId,
    at: Timestamp,
    statistics: &str,
) -> Result<(), DbError> {
    let values = (sessions::began_at.eq(at.micros()), sessions::statistics.eq(statistics));
    let mine = sessions::table.filter(sessions::instance_id.eq(Key::from(instance)));
    match mine.select(sessions::began_at).first::<i64>(tx.sql()).optional()? {
        Some(known) if known >= at.micros() => {}
        Some(_) => drop(diesel::update(mine).set(values).execute(tx.sql())?),
        None => {
            let new = (sessions::instance_id.eq(Key::from(instance)), values.0, values.1);
            diesel::insert_into(sessions::table).values(new).execute(tx.sql())?;
        }
    }
    Ok(())
}

/// Whether a session has ever begun.
pub fn is_known(tx: &mut SystemTx<'_>, instance: InstanceId) -> Result<bool, DbError> {
    let mine = sessions::table.filter(sessions::instance_id.eq(Key::from(instance)));
    Ok(mine.count().get_result::<i64>(tx.sql())? > 0)
}

/// Writes what the session has asked for. A session whose beginning was not told has none.
pub fn statistics(tx: &mut SystemTx<'_>, instance: InstanceId, statistics: &str) -> Result<(), DbError> {
    let mine = sessions::table.filter(sessions::instance_id.eq(Key::from(instance)));
    diesel::update(mine).set(sessions::statistics.eq(statistics)).execute(tx.sql())?;
    Ok(())
}
