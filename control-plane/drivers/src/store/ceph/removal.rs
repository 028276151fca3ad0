//! What is removed: out of its name at once, out of the cluster in the background.
//!
//! A golden image with clones is retired: it gets another name, since its clones read from it, and goes with the last of
//! them. RBD's own trash is no place for it: who opens a clone looks up its parent's name, and a boot volume's user has no
//! right to look into the trash.

use std::sync::Arc;
use std::time::Duration;

use bmi_rbd::{Access, Pool, RbdError};
use bmi_types::{ProjectId, Timestamp, VolumeId};

use super::CephStore;
use super::fault::of_ceph;
use super::guard::{Held, guarded};
use super::ids::{self, Origin};
use super::names::{self, Meaning};
use crate::store::{Item, Place, StoreError};

/// Whose lock is had while the trash of a namespace is emptied.
const GUARD: &str = "bmi.trash";
/// How often it is asked for while another process has it: ten seconds.
const GUARD_TRIES: u32 = 50;
/// How long it is had when it is taken only to make it.
const MOMENT: Duration = Duration::from_secs(1);
/// Where RBD has its list of what is in the trash of a namespace.
const TRASH: &str = "rbd_trash";
/// Things taken out of the trash in one go: the rest is for the next.
const RECLAIM_MAX: usize = 256;

/// What came of many things, each of which was tried: how much was done, and the first that was not.
#[derive(Default)]
struct Sum {
    done: u64,
    first: Option<StoreError>,
}

impl Sum {
    fn add(&mut self, one: Result<u64, StoreError>) {
        match one {
            Ok(done) => self.done += done,
            Err(error) => {
                tracing::warn!(error = bmi_types::chain(&error), "something could not be removed");
                self.first.get_or_insert(error);
            }
        }
    }

    fn end(self) -> Result<u64, StoreError> {
        self.first.map_or(Ok(self.done), Err)
    }
}

/// Takes an image out of its name, with its snapshots; what is not there is gone already.
pub(super) async fn remove_by_name(pool: &Pool, name: &str) -> Result<(), StoreError> {
    match remove(pool, name).await {
        Err(error) if error.is_absent() => Ok(()),
        other => other.map_err(of_ceph),
    }
}

async fn remove(pool: &Pool, name: &str) -> Result<(), RbdError> {
    let image = pool.image_open(name, Access::ReadWrite).await?;
    for snapshot in image.snapshots().await? {
        match image.snapshot_remove(&snapshot).await {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
    }
    image.close().await?;
    match pool.trash_move(name).await {
        // RBD says so as well where it cannot make its list of what is in the trash.
        Err(error) if error.is_absent() && pool.images().await?.iter().any(|entry| entry.name == name) => {
            trash_ensure(pool).await?;
            pool.trash_move(name).await
        }
        moved => moved,
    }
}

/// Whether anything was cloned from an image, what is in the trash included; nothing when it is not there.
pub(super) async fn has_clones(pool: &Pool, name: &str) -> Result<Option<bool>, StoreError> {
    let image = match pool.image_open(name, Access::ReadOnly).await {
        Ok(image) => image,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(of_ceph(error)),
    };
    Ok(Some(!image.children().await.map_err(of_ceph)?.is_empty()))
}

/// Makes what a removal needs besides the image. Where a pool is full nothing is made any more, also for who
/// makes room.
pub(super) async fn trash_ensure(pool: &Pool) -> Result<(), RbdError> {
    let cookie = VolumeId::generate().to_string();
    // A lock makes the object that it is on. Who has one already has the object.
    for object in [TRASH, GUARD] {
        if pool.guard_take(object, &cookie, Some(MOMENT)).await? {
            match pool.guard_release(object, &cookie).await {
                Err(error) if !error.is_absent() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Takes everything of ours out of a namespace's trash that can go, and says how much that was. Nobody else may do so meanwhile.
async fn purge_alone(pool: &Pool, limit: usize, held: &Held) -> Result<u64, StoreError> {
    let mut purged = 0;
    let trash = pool.trash().await.map_err(of_ceph)?.into_iter();
    for trashed in trash.filter(|trashed| names::parse(&trashed.name).is_some()).take(limit) {
        if !held.holds() {
            break;
        }
        match pool.trash_remove(&trashed.id, held.progress()).await {
            Ok(()) => purged += 1,
            // It was told to stop. What is left of the image stays in the trash.
            Err(_) if !held.holds() => break,
            // Another replica was quicker, or something still reads it: later.
            Err(error) if error.is_absent() || error.is_busy() => {}
            // The cluster is away, or this client is.
            Err(error) if error.is_timeout() || error.is_fenced() => return Err(of_ceph(error)),
            // Whoever had it may have made it so: the others go all the same.
            Err(error) => {
                let (namespace, name, error) = (pool.namespace(), trashed.name, bmi_types::chain(&error));
                tracing::warn!(namespace, name, error, "it stays in the trash");
            }
        }
    }
    Ok(purged)
}

impl CephStore {
    /// Removes an image in whatever state it is.
    pub(super) async fn image_gone(&self, place: Place) -> Result<(), StoreError> {
        let pool = self.namespace(place.project).await?;
        for name in [names::upload(place.volume), names::unfinished(&names::upload(place.volume))] {
            remove_by_name(&pool, &name).await?;
        }
        let name = names::image(place.volume);
        remove_by_name(&pool, &names::unfinished(&name)).await?;
        match has_clones(&pool, &name).await? {
            None => {}
            Some(false) => remove_by_name(&pool, &name).await?,
            Some(true) => {
                let retired = names::retired(place.volume);
                pool.image_rename(&name, &retired).await.map_err(of_ceph)?;
            }
        }
        self.purge_later(pool);
        Ok(())
    }

    /// Removes a volume, and its user first: a server that still has it open is fenced.
    pub(super) async fn volume_gone(&self, place: Place) -> Result<(), StoreError> {
        self.key_revoke(place.volume).await?;
        let pool = self.namespace(place.project).await?;
        let name = names::volume(place.volume);
        self.header_check(&pool, place.volume).await?;
        // An owner that lives would hand its lock over, and take it again to write into the trash.
        self.cut_off(&pool, place).await?;
        self.header_check(&pool, place.volume).await?;
        remove_by_name(&pool, &name).await?;
        remove_by_name(&pool, &names::unfinished(&name)).await?;
        for entry in pool.images().await.map_err(of_ceph)? {
            if names::is_former_of(&entry.name, place.volume) {
                remove_by_name(&pool, &entry.name).await?;
            }
        }
        self.0.records.key_remove(place.volume).await?;
        self.purge_later(pool);
        Ok(())
    }

    /// Empties a namespace's trash, alone: librbd ends the whole process when two remove the same image at once, since one takes the
    /// lock from the other in the middle of its work. What another process is at is left to that. When this is dropped, the
    /// emptying stops.
    async fn purge(&self, pool: &Pool, limit: usize) -> Result<u64, StoreError> {
        let here = Arc::clone(&self.0.purging).lock_owned().await;
        let trash = pool.clone();
        let purged = guarded(pool, GUARD, GUARD_TRIES, move |held| async move {
            // The next one here waits until the lock is given back.
            Ok((purge_alone(&trash, limit, &held).await?, here))
        });
        Ok(purged.await?.map_or(0, |(purged, _)| purged))
    }

    /// Gives back what the trash of a namespace takes, while nobody waits. What this does not do, [`Self::reclaim_all`]
    /// does.
    pub(super) fn purge_later(&self, pool: Pool) {
        let store = self.clone();
        tokio::spawn(async move {
            if let Err(error) = store.purge(&pool, RECLAIM_MAX).await {
                let error = bmi_types::chain(&error);
                tracing::info!(namespace = pool.namespace(), error, "the trash is emptied later");
            }
        });
    }

    /// Every namespace that is a project's.
    async fn projects(&self) -> Result<Vec<(ProjectId, Pool)>, StoreError> {
        let mut projects = Vec::new();
        for name in self.0.root.namespaces().await.map_err(of_ceph)? {
            if let Ok(project) = name.parse() {
                projects.push((project, self.namespace(project).await?));
            }
        }
        Ok(projects)
    }

    /// Everything with a name of ours, and what it is.
    pub(super) async fn everything(&self) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        for (project, pool) in self.projects().await? {
            for entry in pool.images().await.map_err(of_ceph)? {
                match names::parse(&entry.name) {
                    None => {
                        let (name, namespace) = (entry.name, pool.namespace());
                        tracing::warn!(
                            namespace,
                            name,
                            "an image in the store is none of ours; it is left alone"
                        );
                    }
                    Some(_) => {
                        // An image and its upload are one.
                        let item = names::item(project, &entry.name);
                        items.extend(item.filter(|item| !items.contains(item)));
                    }
                }
            }
        }
        Ok(items)
    }

    /// Renames everything of an item.
    pub(super) async fn aside(&self, item: Item) -> Result<(), StoreError> {
        let pool = self.namespace(item.place.project).await?;
        for entry in pool.images().await.map_err(of_ceph)? {
            if names::item(item.place.project, &entry.name) == Some(item) {
                if let Some(volume) = names::volume_in(&entry.name) {
                    self.header_check(&pool, volume).await?;
                }
                let aside = names::aside(Timestamp::now(), &entry.name);
                pool.image_rename(&entry.name, &aside).await.map_err(of_ceph)?;
            }
        }
        Ok(())
    }

    /// Removes what was set aside longer ago than `keep`. One that cannot be removed keeps no other from going.
    pub(super) async fn aside_gone(&self, keep: Duration) -> Result<u64, StoreError> {
        let mut sum = Sum::default();
        for (_, pool) in self.projects().await? {
            match pool.images().await.map_err(of_ceph) {
                Ok(entries) => {
                    for entry in entries {
                        sum.add(self.aside_remove(&pool, &entry.name, keep).await);
                    }
                }
                Err(error) => sum.add(Err(error)),
            }
            self.purge_later(pool);
        }
        sum.end()
    }

    /// Removes an image if it was set aside long enough ago, and gives how many that were.
    async fn aside_remove(&self, pool: &Pool, name: &str, keep: Duration) -> Result<u64, StoreError> {
        let Some(Meaning::Aside(at)) = names::parse(name) else { return Ok(0) };
        if Timestamp::now().since(at) < keep {
            return Ok(0);
        }
        let volume = names::volume_in(name);
        if let Some(volume) = volume {
            self.key_revoke(volume).await?;
            match self.header_check(pool, volume).await {
                Err(StoreError::Foreign(what)) => {
                    tracing::warn!(what, "it is not removed");
                    return Ok(0);
                }
                checked => checked?,
            }
        }
        // With clones it stays until they are gone.
        if has_clones(pool, name).await? != Some(false) {
            return Ok(0);
        }
        remove_by_name(pool, name).await?;
        if let Some(volume) = volume {
            self.0.records.key_remove(volume).await?;
        }
        Ok(1)
    }

    /// Empties every trash, and removes retired images whose last clone is gone. What cannot be done in one project keeps no
    /// other from it.
    pub(super) async fn reclaim_all(&self) -> Result<u64, StoreError> {
        let mut sum = Sum::default();
        // Clones first, wherever they are: then their parents can go.
        for (_, pool) in self.projects().await? {
            sum.add(self.purge(&pool, RECLAIM_MAX).await);
        }
        for (_, pool) in self.projects().await? {
            sum.add(self.former_tidy(&pool, None).await);
            match pool.images().await.map_err(of_ceph) {
                Ok(entries) => {
                    for entry in entries {
                        sum.add(self.retired_remove(&pool, &entry.name).await);
                    }
                }
                Err(error) => sum.add(Err(error)),
            }
        }
        self.fences_let_go().await?;
        sum.end()
    }

    /// Removes a retired image if it has no clones any more, and gives how much was taken out of the trash.
    async fn retired_remove(&self, pool: &Pool, name: &str) -> Result<u64, StoreError> {
        let retired = matches!(names::parse(name), Some(Meaning::Retired(_)));
        if !retired || has_clones(pool, name).await? != Some(false) {
            return Ok(0);
        }
        remove_by_name(pool, name).await?;
        self.purge(pool, RECLAIM_MAX).await
    }

    /// Makes an unfinished image, whatever was left of one before.
    pub(super) async fn begin(
        &self,
        pool: &Pool,
        name: &str,
        origin: Origin<'_>,
    ) -> Result<String, StoreError> {
        let unfinished = names::unfinished(name);
        remove_by_name(pool, &unfinished).await?;
        ids::make_with_own_id(pool, &unfinished, &origin).await?;
        Ok(unfinished)
    }
}
