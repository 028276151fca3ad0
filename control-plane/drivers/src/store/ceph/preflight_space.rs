//! The namespace in which a start tries what the store needs, and what is left of such when a start was
//! killed, or Ceph stood still under it.
//!
//! A user that such a start left stays: the control plane has no right to list users. It may do nothing, and
//! its name tells how old it is, as the namespace's does.

use std::time::Duration;

use bmi_rbd::{Cluster, Pool, Progress, RbdError};
use bmi_types::{Timestamp, chain};
use uuid::Uuid;

use super::fault::of_ceph;
use super::guard::guarded;
use super::removal::remove_by_name;
use crate::store::StoreError;

/// What begins its name. Behind it comes a UUID of version 7.
const BEGINNING: &str = "bmi-preflight-";
/// The images that are made in it, a clone before what it was cloned from.
pub(super) const CLONE: &str = "clone";
pub(super) const IMAGE: &str = "image";
/// After this nobody works in it any more: a start makes some twenty calls, each of which is given up after a
/// minute.
const LEFT: Duration = Duration::from_secs(60 * 60);
/// Whose lock is had while one of another process is removed. It is in the pool's default namespace, which
/// stays.
const GUARD: &str = "bmi.preflight";

pub(super) fn named(start: Uuid) -> String {
    format!("{BEGINNING}{start}")
}

/// When a namespace was made; nothing when it is none of these.
fn made_at(namespace: &str) -> Option<Timestamp> {
    let start: Uuid = namespace.strip_prefix(BEGINNING)?.parse().ok()?;
    if start.get_version_num() != 7 {
        return None;
    }
    let (seconds, _) = start.get_timestamp()?.to_unix();
    Some(Timestamp::from_micros(i64::try_from(seconds).ok()?.checked_mul(1_000_000)?))
}

/// Says that something of a start stays.
pub(super) fn told(space: &Pool, error: &dyn std::error::Error) {
    let (namespace, error) = (space.namespace(), chain(error));
    tracing::warn!(namespace, error, "what a start made cannot be removed");
}

/// Removes the namespace of a start with everything in it. What keeps it from going is told.
pub(super) async fn removed(
    root: &Pool,
    space: &Pool,
    progress: impl Fn() -> Progress,
) -> Result<(), RbdError> {
    if !root.namespaces().await?.iter().any(|name| name == space.namespace()) {
        return Ok(());
    }
    emptied(space, progress).await;
    match root.namespace_remove(space.namespace()).await {
        Err(error) if error.is_absent() => Ok(()),
        removed => removed,
    }
}

async fn emptied(space: &Pool, progress: impl Fn() -> Progress) {
    for image in [CLONE, IMAGE] {
        if let Err(error) = remove_by_name(space, image).await {
            told(space, &error);
        }
    }
    // The parent cannot go before its clone, whichever is listed first.
    for is_last in [false, true] {
        let trash = match space.trash().await {
            Ok(trash) => trash,
            Err(error) => return told(space, &error),
        };
        for trashed in trash {
            match space.trash_remove(&trashed.id, progress()).await {
                Err(error) if is_last || !error.is_busy() => told(space, &error),
                _ => {}
            }
        }
    }
}

/// Removes what starts have left that ended long ago. What does not go is told, and tried again at the next
/// start.
pub(super) async fn sweep(cluster: &Cluster, root: &Pool, pool: &str) {
    if let Err(error) = swept(cluster, root, pool).await {
        tracing::warn!(pool, error = chain(&error), "what earlier starts left cannot be removed");
    }
}

async fn swept(cluster: &Cluster, root: &Pool, pool: &str) -> Result<(), StoreError> {
    let is_left = |name: &String| made_at(name).is_some_and(|at| Timestamp::now().since(at) >= LEFT);
    let left: Vec<String> = root.namespaces().await.map_err(of_ceph)?.into_iter().filter(is_left).collect();
    if left.is_empty() {
        return Ok(());
    }
    let (cluster, of, pool) = (cluster.clone(), root.clone(), pool.to_owned());
    // Another process that has the lock does the same.
    let swept = guarded(root, GUARD, 1, move |held| async move {
        for name in left {
            let space = cluster.pool(&pool, &name).await.map_err(of_ceph)?;
            match removed(&of, &space, || held.progress()).await {
                Ok(()) => tracing::info!(namespace = name, "what an earlier start left is removed"),
                Err(error) => told(&space, &error),
            }
        }
        Ok(())
    });
    swept.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_namespace_is_in_its_name() {
        let at = made_at("bmi-preflight-018bcfe5-6800-7000-8000-000000000000").unwrap();
        assert_eq!(at.micros(), 1_700_000_000_000_000);
        let now = made_at(&named(Uuid::now_v7())).unwrap();
        assert!(Timestamp::now().since(now) < Duration::from_secs(60));
        let random = named(Uuid::new_v4());
        for other in ["", "import", "bmi-preflight-", "018bcfe5-6800-7000-8000-000000000000", &random] {
            assert_eq!(made_at(other), None, "{other}");
        }
    }
}
