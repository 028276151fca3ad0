//! Checkpoints of boot volumes: made, gone back to, turned into images.
//!
//! A tag is a snapshot of the image that the volume was at that time. Going back to it makes a clone of that snapshot and
//! swaps it in; the image that was the volume until then is a *former* one, which stays as long as it has tags or clones.
//! So going back copies nothing, and what was tagged later can still be gone back to.
//!
//! All of this is done while nobody can have the volume: who has its key could change its header under the control plane,
//! which would then follow it with its own rights.
//!
//! Invariants:
//! - An image made of a tag shares nothing with the volume before it can be sealed: who has a volume's key can change what
//!   its snapshots say, by writing as if it did not know of them.
//! - No more than [`ANCESTORS_MAX`] images are behind a volume.

use bmi_rbd::{Access, Image, Pool};
use bmi_types::{TagId, VolumeId};

use super::changes::flatten;
use super::fault::of_ceph;
use super::ids::Origin;
use super::names::{self, Meaning};
use super::removal::{has_clones, remove_by_name};
use super::{CephStore, images};
use crate::store::{Place, Progress, StoreError};

/// How many images a volume may read from besides itself: its caps name each.
pub(super) const ANCESTORS_MAX: usize = 3;

/// An image that is or was a volume.
struct Generation {
    name: String,
    id: String,
    tags: Vec<TagId>,
}

impl CephStore {
    /// Does something to a volume that nobody can have meanwhile, and makes a new user for who comes next.
    pub(super) async fn alone<T>(
        &self,
        volume: Place,
        config: Place,
        work: impl AsyncFnOnce(&Pool) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.key_revoke(volume.volume).await?;
        let pool = self.namespace(volume.project).await?;
        self.header_check(&pool, volume.volume).await?;
        self.cut_off(&pool, volume).await?;
        self.header_check(&pool, volume.volume).await?;
        // What its key may do and what its header says are noted anew for who comes next: the work changes both.
        self.0.records.key_remove(volume.volume).await?;
        let done = work(&pool).await;
        // Also when it failed: the volume is what it was.
        let reached = self.key_ensure(volume, Some(config)).await;
        let done = done?;
        reached.map(|()| done)
    }

    pub(super) async fn tagged(&self, volume: Place, config: Place, tag: TagId) -> Result<(), StoreError> {
        if self.tag_find(volume, tag).await?.is_some() {
            return Ok(());
        }
        self.alone(volume, config, async |pool| {
            let image = volume_open(pool, volume, Access::ReadWrite).await?;
            let made = match image.snapshot_create(&names::tag(tag)).await {
                Err(error) if error.exists() => Ok(()),
                made => made.map_err(of_ceph),
            };
            let closed = image.close().await.map_err(of_ceph);
            made.and(closed)
        })
        .await
    }

    pub(super) async fn tags_of(&self, volume: Place) -> Result<Vec<TagId>, StoreError> {
        let mut tags: Vec<TagId> =
            self.generations(volume).await?.into_iter().flat_map(|generation| generation.tags).collect();
        tags.sort();
        Ok(tags)
    }

    pub(super) async fn untagged(&self, volume: Place, config: Place, tag: TagId) -> Result<(), StoreError> {
        let Some(generation) = self.tag_find(volume, tag).await? else { return Ok(()) };
        if generation.name == names::volume(volume.volume) {
            self.alone(volume, config, async |pool| tag_remove(pool, &generation.name, tag).await).await
        } else {
            let pool = self.namespace(volume.project).await?;
            tag_remove(&pool, &generation.name, tag).await?;
            self.former_tidy(&pool, Some(volume.volume)).await.map(drop)
        }
    }

    /// Goes back to a tag. It may be asked for again after it was cut off anywhere.
    pub(super) async fn rolled_back(
        &self,
        volume: Place,
        config: Place,
        tag: TagId,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let absent = StoreError::NoTag { place: volume, tag };
        let generation = self.tag_find(volume, tag).await?.ok_or(absent)?;
        self.alone(volume, config, async |pool| {
            self.flattened_when_deep(pool, &generation.name, progress).await?;
            let name = names::volume(volume.volume);
            let origin = Origin::Snapshot(pool, &generation.name, &names::tag(tag));
            let next = self.begin(pool, &name, origin).await?;
            if let Some(now) = id_of(pool, &name).await? {
                let former = names::former(&now, volume.volume);
                pool.image_rename(&name, &former).await.map_err(of_ceph)?;
            }
            pool.image_rename(&next, &name).await.map_err(of_ceph)?;
            self.former_tidy(pool, Some(volume.volume)).await.map(drop)
        })
        .await
    }

    /// Makes an open image of a tag, which shares nothing with the volume. One that was cut off goes on where it was.
    pub(super) async fn image_of_tag(
        &self,
        volume: Place,
        config: Place,
        tag: TagId,
        image: Place,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let (name, pool) = (names::image(image.volume), self.namespace_ensure(image.project).await?);
        self.not_sealed(image).await?;
        let absent = StoreError::NoTag { place: volume, tag };
        let generation = self.tag_find(volume, tag).await?.ok_or(absent)?;
        let unfinished = names::unfinished(&name);
        // Opened while nobody has the volume: what it reads from is looked up then, and never again.
        let copy = self
            .alone(volume, config, async |from| {
                let begun = images::find(&pool, &unfinished, Access::ReadWrite).await?;
                if let Some(begun) = begun {
                    if is_clone_of(&begun, &generation, tag).await? {
                        return Ok(begun);
                    }
                    begun.close().await.map_err(of_ceph)?;
                }
                self.begin(&pool, &name, Origin::Snapshot(from, &generation.name, &names::tag(tag))).await?;
                pool.image_open(&unfinished, Access::ReadWrite).await.map_err(of_ceph)
            })
            .await?;
        let flattened = flatten(&copy, progress).await;
        let closed = copy.close().await.map_err(of_ceph);
        flattened.and(closed)?;
        self.finish(&pool, image, &unfinished, &name).await
    }

    /// The image that has a tag of a volume.
    async fn tag_find(&self, volume: Place, tag: TagId) -> Result<Option<Generation>, StoreError> {
        let generations = self.generations(volume).await?;
        Ok(generations.into_iter().find(|generation| generation.tags.contains(&tag)))
    }

    /// A volume's image and its former ones.
    async fn generations(&self, volume: Place) -> Result<Vec<Generation>, StoreError> {
        let pool = self.namespace(volume.project).await?;
        self.header_check(&pool, volume.volume).await?;
        let mut generations = Vec::new();
        for entry in pool.images().await.map_err(of_ceph)? {
            let is_former = names::is_former_of(&entry.name, volume.volume);
            if entry.name != names::volume(volume.volume) && !is_former {
                continue;
            }
            let Some(image) = images::find(&pool, &entry.name, Access::ReadOnly).await? else { continue };
            let tags = tags_in(&image).await?;
            generations.push(Generation { name: entry.name, id: entry.id, tags });
        }
        if generations.is_empty() { Err(StoreError::Absent(volume)) } else { Ok(generations) }
    }

    /// Removes former images without tags and clones, of one volume or of all, and says how many.
    pub(super) async fn former_tidy(&self, pool: &Pool, volume: Option<VolumeId>) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let before = removed;
            for entry in pool.images().await.map_err(of_ceph)? {
                let Some(Meaning::Former(of)) = names::parse(&entry.name) else { continue };
                if volume.is_some_and(|volume| volume != of) {
                    continue;
                }
                let Some(image) = images::find(pool, &entry.name, Access::ReadOnly).await? else { continue };
                let has_tags = !tags_in(&image).await?.is_empty();
                drop(image);
                if !has_tags && has_clones(pool, &entry.name).await? == Some(false) {
                    remove_by_name(pool, &entry.name).await?;
                    removed += 1;
                }
            }
            // With a clone goes what kept its parent; one in the trash keeps it until that is emptied.
            if removed == before {
                self.purge_later(pool.clone());
                return Ok(removed);
            }
        }
    }

    /// Copies what an image shares with others when a clone of it would have too many behind it.
    async fn flattened_when_deep(
        &self,
        pool: &Pool,
        name: &str,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let image = pool.image_open(name, Access::ReadOnly).await.map_err(of_ceph)?;
        let behind = self.ancestors(&image).await?.len();
        image.close().await.map_err(of_ceph)?;
        if behind < ANCESTORS_MAX {
            return Ok(());
        }
        let image = pool.image_open(name, Access::ReadWrite).await.map_err(of_ceph)?;
        let flattened = flatten(&image, progress).await;
        let closed = image.close().await.map_err(of_ceph);
        flattened.and(closed)
    }
}

async fn volume_open(pool: &Pool, volume: Place, access: Access) -> Result<Image, StoreError> {
    let found = images::find(pool, &names::volume(volume.volume), access).await?;
    found.ok_or(StoreError::Absent(volume))
}

async fn id_of(pool: &Pool, name: &str) -> Result<Option<String>, StoreError> {
    let entries = pool.images().await.map_err(of_ceph)?;
    Ok(entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.id))
}

async fn tags_in(image: &Image) -> Result<Vec<TagId>, StoreError> {
    let snapshots = image.snapshots().await.map_err(of_ceph)?;
    Ok(snapshots.iter().filter_map(|name| names::tag_parse(name)).collect())
}

async fn tag_remove(pool: &Pool, name: &str, tag: TagId) -> Result<(), StoreError> {
    let Some(image) = images::find(pool, name, Access::ReadWrite).await? else { return Ok(()) };
    let removed = match image.snapshot_remove(&names::tag(tag)).await {
        Err(error) if error.is_absent() => Ok(()),
        removed => removed.map_err(of_ceph),
    };
    let closed = image.close().await.map_err(of_ceph);
    removed.and(closed)
}

async fn is_clone_of(image: &Image, generation: &Generation, tag: TagId) -> Result<bool, StoreError> {
    let parent = image.parent().await.map_err(of_ceph)?;
    Ok(parent.is_some_and(|parent| parent.id == generation.id && parent.snapshot == names::tag(tag)))
}
