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

/// What a stage says of the traffic until then. That may be more when the same is told again.
const COUNTERS: [&str; 2] = ["read_bytes", "written_bytes"];

fn parse(detail: &str) -> Result<Detail, DbError> {
    readable("stages", "detail", detail, serde_json::from_str(detail))
}

/// Whether two details are of the same thing.
fn is_same(one: &Detail, other: &Detail) -> bool {
    fn said(detail: &Detail) -> impl Iterator<Item = (&String, &String)> {
        detail.iter().filter(|(key, _)| !COUNTERS.contains(&key.as_str()))
    }
    said(one).eq(said(other))
}

/// Writes one stage; beyond [`STAGES_MAX`] the oldest goes. One that is there already is not written a second time: an agent
/// sends a batch of events again whose answer it has not heard.
pub fn insert(
    tx: &mut Tx<'_>,
    instance: InstanceId,
    at: Timestamp,
    stage: &str,
    detail: &Detail,
) -> Result<(), DbError> {
    let mine = stages::table.filter(stages::instance_id.eq(Key::from(instance)));
    let alike = mine.filter(stages::at.eq(at.micros())).filter(stages::stage.eq(stage));
    let alike: Vec<String> = alike.select(stages::detail).load(tx.sql())?;
    for known in &alike {
        if is_same(&parse(known)?, detail) {
            return Ok(());
        }
    }
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
        .map(|(at, stage, detail)| Ok((Timestamp::from_micros(at), stage, parse(&detail)?)))
        .collect()
}
