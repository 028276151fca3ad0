//! What happened to a network as a whole: faults that its agent told, and who its agents are.

use bmi_types::{NetworkId, Timestamp};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{Key, readable};
use crate::schema::network_events;
use crate::stage::Detail;
use crate::{DbError, Tx};

/// The most events of one kind that are kept of a network. The oldest of that kind goes first: an agent that tells many
/// faults hides nothing but faults. By when they were heard, whatever its clock says.
pub const OF_A_KIND_MAX: i64 = 200;

/// Writes one event; beyond [`OF_A_KIND_MAX`] the oldest of its kind goes. One that is there already is not written a second
/// time: an agent sends again what it has heard no answer to.
pub fn insert(
    tx: &mut Tx<'_>,
    network: NetworkId,
    at: Timestamp,
    event: &str,
    detail: &Detail,
) -> Result<(), DbError> {
    let alike = network_events::table
        .filter(network_events::network_id.eq(Key::from(network)))
        .filter(network_events::event.eq(event));
    let detail = serde_json::to_string(detail).map_err(|error| DbError::Unavailable(error.to_string()))?;
    let same = alike.filter(network_events::at.eq(at.micros())).filter(network_events::detail.eq(&detail));
    if same.count().get_result::<i64>(tx.sql())? > 0 {
        return Ok(());
    }
    let count: i64 = alike.count().get_result(tx.sql())?;
    if count >= OF_A_KIND_MAX {
        let oldest: Vec<Key> = alike
            .order(network_events::id.asc())
            .limit(count - OF_A_KIND_MAX + 1)
            .select(network_events::id)
            .load(tx.sql())?;
        diesel::delete(network_events::table.filter(network_events::id.eq_any(oldest))).execute(tx.sql())?;
    }
    diesel::insert_into(network_events::table)
        .values((
            network_events::id.eq(Key(Uuid::now_v7())),
            network_events::network_id.eq(Key::from(network)),
            network_events::at.eq(at.micros()),
            network_events::event.eq(event),
            network_events::detail.eq(detail),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// Every event of a network, in the order in which they were heard.
pub fn list(tx: &mut Tx<'_>, network: NetworkId) -> Result<Vec<(Timestamp, String, Detail)>, DbError> {
    let rows: Vec<(i64, String, String)> = network_events::table
        .filter(network_events::network_id.eq(Key::from(network)))
        .order(network_events::id.asc())
        .select((network_events::at, network_events::event, network_events::detail))
        .load(tx.sql())?;
    rows.into_iter()
        .map(|(at, event, detail)| {
            let parsed = readable("network_events", "detail", &detail, serde_json::from_str(&detail))?;
            Ok((Timestamp::from_micros(at), event, parsed))
        })
        .collect()
}
