//! Stages: what happened to an instance, kept as history.

use std::collections::BTreeMap;

use bmi_types::{InstanceId, Timestamp};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{Key, readable};
use crate::schema::stages;
use crate::{DbError, Tx};

/// The most stages kept and shown of one instance: a boot has about ten. The oldest go first: what a node does a
/// thousand times must not hide what happens next.
pub const STAGES_MAX: i64 = 1000;

/// Details of a stage.
pub type Detail = BTreeMap<String, String>;

/// Writes one stage; beyond [`STAGES_MAX`] the oldest goes.
pub fn insert(
    tx: &mut Tx<'_>,
    instance: InstanceId,
    at: Timestamp,
    stage: &str,
    detail: &Detail,
) -> Result<(), DbError> {
    let mine = stages::table.filter(stages::instance_id.eq(Key::from(instance)));
    let count: i64 = mine.count().get_result(tx.sql())?;
    if count >= STAGES_MAX {
        let oldest: Vec<Key> = mine
            .order((stages::at.asc(), stages::id.asc()))
            .limit(count - STAGES_MAX + 1)
            .select(stages::id)
            .load(tx.sql())?;
        diesel::delete(stages::table.filter(stages::id.eq_any(oldest))).execute(tx.sql())?;
    }
    let detail = serde_json::to_string(detail).map_err(|error| DbError::Unavailable(error.to_string()))?;
    diesel::insert_into(stages::table)
        .values((
            stages::id.eq(Key(Uuid::now_v7())),
            stages::instance_id.eq(Key::from(instance)),
            stages::at.eq(at.micros()),
            stages::stage.eq(stage),
            stages::detail.eq(detail),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// Every stage of an instance, oldest first.
pub fn list(tx: &mut Tx<'_>, instance: InstanceId) -> Result<Vec<(Timestamp, String, Detail)>, DbError> {
    let rows: Vec<(i64, String, String)> = stages::table
        .filter(stages::instance_id.eq(Key::from(instance)))
        .order((stages::at.asc(), stages::id.asc()))
        .limit(STAGES_MAX)
        .select((stages::at, stages::stage, stages::detail))
        .load(tx.sql())?;
    rows.into_iter()
        .map(|(at, stage, detail)| {
            let parsed = readable("stages", "detail", &detail, serde_json::from_str(&detail))?;
            Ok((Timestamp::from_micros(at), stage, parsed))
        })
        .collect()
}
