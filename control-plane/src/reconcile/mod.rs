//! The reconciler: compares the store with the database, sets aside what nobody knows, tells what is missing.
//!
//! It takes no input: each look begins from nothing. What agents keep, they compare themselves.
//!
//! Invariants:
//! - An intent is in the database before its effect, and is there until after the effect is undone. So what the store
//!   holds at one time and the database does not know *later* belongs to nobody.
//! - Nothing is deleted on sight: a database that was restored from a backup does not know what was made since. It is
//!   set aside, and removed days later.
//! - What is missing is told once, and again when it went missing again. It is never made up for: an empty disk in the
//!   place of a lost one would look like a node that was never installed.

mod measure;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bmi_db::known::Known;
use bmi_drivers::store::{Item, ItemKind, Place, StoreError};
use bmi_types::{InstanceId, Timestamp, VolumeId};

use crate::app::App;
use crate::config::Reconcile;
use crate::error::AppError;

/// Things set aside in one look: a mistake of ours must not empty a store before somebody sees it.
const ASIDE_MAX: usize = 1000;

/// How long a replica that ended keeps the others from comparing, and how often it says that it lives.
const LEASE: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(4);
/// The lease's name.
const LEASE_NAME: &str = "reconciler";

/// Compares again and again, until the task is aborted. Of several replicas one does, and another when that one ends.
pub async fn run(app: Arc<App>, config: Reconcile, replica: String) {
    let keep = Duration::from_secs(config.keep_days.saturating_mul(24 * 60 * 60));
    let every = Duration::from_secs(config.every_s);
    let mut told = Told::default();
    loop {
        match mine(&app, &replica).await {
            Ok(true) => {
                tokio::select! {
                    () = look_and_pause(&app, keep, &mut told, every) => {}
                    () = lost(&app, &replica) => tracing::warn!("another replica compares the store with the database now"),
                }
            }
            // Often enough that the end of another one's lease is what takes time.
            Ok(false) => tokio::time::sleep(every.min(RENEWAL)).await,
            Err(error) => {
                tracing::warn!(%error, "it is not known which replica compares the store with the database");
                tokio::time::sleep(every.min(LEASE)).await;
            }
        }
    }
}

async fn look_and_pause(app: &App, keep: Duration, told: &mut Told, every: Duration) {
    match look(app, keep, told).await {
        Ok(found) if found == Found::default() => {}
        Ok(found) => tracing::warn!(
            set_aside = found.set_aside,
            expired = found.expired,
            missing = found.missing,
            "the store and the database differ"
        ),
        Err(error) => {
            tracing::error!(error = %error, cause = ?std::error::Error::source(&error), "the store could not be compared with the database");
        }
    }
    tokio::time::sleep(every).await;
}

/// Whether it is this replica that compares now.
async fn mine(app: &App, replica: &str) -> Result<bool, AppError> {
    let replica = replica.to_owned();
    app.db
        .system_write(move |tx| Ok(bmi_db::lease::hold(tx, LEASE_NAME, &replica, Timestamp::now(), LEASE)?))
        .await
}

/// Prolongs the lease, and ends when it is not this replica's any more or was not prolonged in time.
async fn lost(app: &App, replica: &str) {
    let mut prolonged = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(RENEWAL).await;
        match mine(app, replica).await {
            Ok(true) => prolonged = tokio::time::Instant::now(),
            Ok(false) => return,
            Err(_) if prolonged.elapsed() + RENEWAL >= LEASE => return,
            Err(_) => {}
        }
    }
}

/// What was told already, and measured.
#[derive(Debug, Default)]
pub struct Told {
    missing: BTreeSet<Place>,
    abandoned: BTreeSet<InstanceId>,
    measured: measure::Measured,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Images and volumes that nobody knows, set aside.
    pub set_aside: u64,
    /// Files set aside long ago, removed.
    pub expired: u64,
    /// Images and volumes that should be there and are not, told for the first time.
    pub missing: u64,
    /// Instances that no operation works on, in a state that only one may hold, told for the first time.
    pub abandoned: u64,
}

/// Looks once.
///
/// # Errors
/// When the store or the database fails.
pub async fn look(app: &App, keep: Duration, told: &mut Told) -> Result<Found, AppError> {
    let known = || app.db.system_read(|tx| Ok::<_, AppError>(bmi_db::known::all(tx)?));
    // The order matters: what is nobody's is looked up after the store was listed, what is missing must have been
    // there to be missed before.
    let before = known().await?;
    let items: BTreeSet<Item> = app.store.items().await?.into_iter().collect();
    let after = known().await?;
    let mut found = Found::default();

    let places: BTreeSet<Item> = holdings(&after).map(|holding| holding.item).collect();
    for item in items.difference(&places).take(ASIDE_MAX) {
        match app.store.set_aside(*item).await {
            // Whoever tampered with it must not keep the rest from being looked at.
            Err(StoreError::Foreign(reason)) => {
                tracing::warn!(place = %item.place, reason, "nobody knows it, and it cannot be set aside");
                continue;
            }
            done => done?,
        }
        tracing::warn!(kind = ?item.kind, place = %item.place, "nobody knows it; it is set aside");
        found.set_aside += 1;
    }
    // What cannot be removed keeps nothing from being told; it is an error of this look all the same, at its end.
    let removed = removals(app, keep, &mut found).await;

    let before = expected(&before);
    let missing: Vec<(Option<InstanceId>, Place)> = expected(&after)
        .into_iter()
        .filter(|(item, _)| before.contains_key(item) && !items.contains(item))
        .map(|(item, of)| (of, item.place))
        .collect();
    for (instance, place) in missing.iter().filter(|(_, place)| !told.missing.contains(place)) {
        tracing::error!(place = %place, instance.id = instance.map(tracing::field::display), "its content is missing from the store");
        if let Some(instance) = *instance {
            let detail = [("volume".to_owned(), place.volume.to_string())].into();
            app.db
                .system_write(move |tx| {
                    let stage = "volume.missing";
                    Ok::<_, AppError>(bmi_db::stage::insert(tx, instance, Timestamp::now(), stage, &detail)?)
                })
                .await?;
        }
        found.missing += 1;
    }
    told.missing = missing.into_iter().map(|(_, place)| place).collect();

    let abandoned: BTreeSet<InstanceId> = after.abandoned.iter().copied().collect();
    for instance in abandoned.difference(&told.abandoned) {
        tracing::error!(instance.id = %instance, "no operation works on it, and its state says that one does");
        found.abandoned += 1;
    }
    told.abandoned = abandoned;
    measure::measure(app, &after, &mut told.measured).await?;
    app.metrics.reconciled(&found, told.missing.len());
    removed.map(|()| found)
}

/// Removes what was set aside long ago, and gives back what was removed before.
async fn removals(app: &App, keep: Duration, found: &mut Found) -> Result<(), AppError> {
    let expired = app.store.aside_expire(keep).await;
    let reclaimed = app.store.reclaim().await;
    found.expired = expired?;
    let reclaimed = reclaimed?;
    if reclaimed > 0 {
        tracing::info!(reclaimed, "what was removed has given back its room");
    }
    Ok(())
}

/// Something that the database knows: what, whose it is, and whether it must be there now.
struct Holding {
    item: Item,
    of: Option<InstanceId>,
    settled: bool,
}

fn holdings(known: &Known) -> impl Iterator<Item = Holding> {
    let images = known.images.iter().map(|(project, id, sealed)| {
        let place = Place { project: *project, volume: VolumeId::from(id.uuid()) };
        Holding { item: Item { kind: ItemKind::Image, place }, of: None, settled: *sealed }
    });
    let volumes = known.instances.iter().flat_map(|instance| {
        instance.volumes.map(|volume| {
            let item = Item { kind: ItemKind::Volume, place: Place { project: instance.project, volume } };
            Holding { item, of: Some(instance.instance), settled: instance.settled }
        })
    });
    images.chain(volumes)
}

/// What must be there now, with the instance it belongs to.
fn expected(known: &Known) -> BTreeMap<Item, Option<InstanceId>> {
    holdings(known).filter(|holding| holding.settled).map(|holding| (holding.item, holding.of)).collect()
}
