//! Import of an image that is in the pool already, in the one namespace that the operator chose for that: it is copied.
//!
//! It is looked at without opening it, then opened to read, then looked at again when it is copied. A name leads to no other
//! namespace, and neither does what an image there was cloned from: not into a project's.
//!
//! Deliberately absent: anything that changes the image, a snapshot of it included; so the copy of an image that somebody may
//! write to is refused unless a snapshot is named. (Who writes after the first look and has closed it before the second is
//! noticed by the time of the last write, which writers note once a minute: of what lives, name a snapshot.)

use bmi_rbd::{Access, Header, Image, Pool, features};
use bmi_types::{ImageFormat, ProjectId, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::content::{self, PIECE, Piece, Waiting};
use super::fault::of_ceph;
use super::images::panicked;
use super::{CephStore, names};
use crate::image::{Inspected, inspect};
use crate::store::{Place, Progress, SourceError, StoreError, StoredSource};

/// How much of a source is asked for at once what is in it.
const WINDOW: u64 = 256 << 20;
/// How far it is followed what an image was cloned from. RBD itself takes 16.
const ANCESTORS_MAX: usize = 16;

/// An image to import, open to read, as it is or as it was at the snapshot that was named.
struct Source {
    image: Image,
    size: u64,
    id: String,
    header: Header,
    modified_at: Timestamp,
    snapshot: Option<u64>,
}

impl Source {
    /// Whether a second look found the same.
    fn is(&self, other: &Self) -> bool {
        // What an image is now says nothing of a snapshot.
        let same =
            self.snapshot.is_some() || (&self.header, self.modified_at) == (&other.header, other.modified_at);
        same && self.id == other.id && self.snapshot == other.snapshot && self.size == other.size
    }

    /// What a copy is known by, so that it goes on with the same. What has no snapshot may have been changed in between, and
    /// is begun anew.
    fn mark(&self) -> String {
        match self.snapshot {
            Some(snapshot) => format!("rbd:{}@{snapshot}:{}", self.id, self.size),
            None => format!("rbd:{}:{}", self.id, Uuid::new_v4()),
        }
    }
}

/// What of an image's features keeps it from being read, and what would be right.
fn unreadable(features: u64, snapshot_named: bool) -> Option<&'static str> {
    let has = |feature| features & feature != 0;
    if features & !features::KNOWN != 0 {
        return Some("it has features that this server does not know");
    }
    if has(features::MIGRATING) {
        return Some("it is being migrated; finish that first (rbd migration execute, commit)");
    }
    if has(features::NON_PRIMARY) {
        return Some("it is the mirror of another one, and follows it; copy or promote it first");
    }
    // A snapshot has everything that was written before it.
    if has(features::JOURNALING) && !snapshot_named {
        return Some("its last writes may be in its journal only; name a snapshot");
    }
    if has(features::DIRTY_CACHE) && !snapshot_named {
        return Some("its last writes may be in a writer's cache only; name a snapshot");
    }
    None
}

/// Whether an image was cloned, directly or not, from one of a project's namespace.
async fn is_of_a_project(store: &CephStore, image: &Image) -> Result<bool, StoreError> {
    let mut youngest = image.clone();
    for _ in 0..ANCESTORS_MAX {
        let Some(parent) = youngest.parent().await.map_err(of_ceph)? else { return Ok(false) };
        if parent.namespace.parse::<ProjectId>().is_ok() {
            return Ok(true);
        }
        let pool = store.0.cluster.pool(&store.0.settings.pool, &parent.namespace).await.map_err(of_ceph)?;
        youngest = match pool.image_open(&parent.image, Access::ReadOnly).await {
            Ok(image) => image,
            // It is in another pool, where there are no projects.
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) => return Err(of_ceph(error)),
        };
    }
    Ok(false)
}

/// Refuses an image whose present state may not be what is meant, or is not settled.
async fn settled(pool: &Pool, source: &StoredSource, image: &Image, id: &str) -> Result<(), StoreError> {
    if !image.children().await.map_err(of_ceph)?.is_empty() {
        return Err(SourceError::HasClones(source.clone()).into());
    }
    let open = !image.watchers().await.map_err(of_ceph)?.is_empty()
        || !pool.lock_owners(id).await.map_err(of_ceph)?.is_empty();
    if open { Err(SourceError::InUse(source.clone()).into()) } else { Ok(()) }
}

/// Sends what of an image is not zero, from an offset on.
async fn read(image: &Image, size: u64, from: u64, sender: mpsc::Sender<Piece>) -> Result<(), StoreError> {
    let gone = |_| StoreError::Unusable("nobody writes what is read".to_owned());
    let mut window = from;
    while window < size {
        let end = size.min(window.saturating_add(WINDOW));
        for extent in image.extents(window, end - window).await.map_err(of_ceph)? {
            let (mut at, extent_end) = (extent.offset, extent.offset + extent.length);
            while at < extent_end {
                let length = (extent_end - at).min(PIECE);
                let bytes = image.read(at, usize::try_from(length).unwrap_or(0)).await.map_err(of_ceph)?;
                let runs = content::not_zero(at, &bytes.into());
                at += length;
                sender.send((at, runs)).await.map_err(gone)?;
            }
        }
        sender.send((end, Vec::new())).await.map_err(gone)?;
        window = end;
    }
    Ok(())
}

impl CephStore {
    /// Finds an image to import, and refuses what is not to be copied.
    async fn source(&self, named: &StoredSource) -> Result<Source, StoreError> {
        let namespace = self.0.settings.import_namespace.as_deref().ok_or(SourceError::NotConfigured)?;
        let pool = self.0.cluster.pool(&self.0.settings.pool, namespace).await.map_err(of_ceph)?;
        let no_image = || StoreError::from(SourceError::NoImage(named.clone()));
        let or_no_image =
            |error: bmi_rbd::RbdError| if error.is_absent() { no_image() } else { of_ceph(error) };
        let unreadable_because =
            |reason| StoreError::from(SourceError::Unreadable { source_image: named.clone(), reason });
        let entries = pool.images().await.map_err(of_ceph)?;
        let found = entries.into_iter().find(|entry| entry.name == named.image()).ok_or_else(no_image)?;
        // Before it is opened, which for one that is migrated opens what it comes from: a file of this host, it may be.
        let header = pool.header(&found.id).await.map_err(or_no_image)?;
        let features = header.features().ok_or_else(|| unreadable_because("its header cannot be read"))?;
        if let Some(reason) = unreadable(features, named.snapshot().is_some()) {
            return Err(unreadable_because(reason));
        }
        let image = pool.image_open(named.image(), Access::ReadOnly).await.map_err(or_no_image)?;
        let id = image.id().await.map_err(of_ceph)?;
        if is_of_a_project(self, &image).await? {
            return Err(unreadable_because("it is a clone of an image that belongs to a project"));
        }
        let snapshot = match named.snapshot() {
            None => {
                settled(&pool, named, &image, &id).await?;
                None
            }
            Some(snapshot) => {
                let absent = |error: bmi_rbd::RbdError| match error.is_absent() {
                    true => SourceError::NoSnapshot(named.clone()).into(),
                    false => of_ceph(error),
                };
                let number = image.snapshot_id(snapshot).await.map_err(absent)?;
                image.snapshot_look_at(snapshot).await.map_err(absent)?;
                Some(number)
            }
        };
        let (size, modified_at) =
            (image.size().await.map_err(of_ceph)?, image.modified_at().await.map_err(of_ceph)?);
        Ok(Source { image, size, id, header, modified_at, snapshot })
    }

    /// Looks at an image to import.
    pub(super) async fn source_looked_at(&self, named: &StoredSource) -> Result<Inspected, StoreError> {
        inspected(&self.source(named).await?).await
    }

    /// Replaces an image by a copy of one to import.
    pub(super) async fn source_copied(
        &self,
        place: Place,
        named: &StoredSource,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.not_sealed(place).await?;
        let source = self.source(named).await?;
        inspected(&source).await?;
        let pool = self.namespace_ensure(place.project).await?;
        let (name, mark, size) = (names::image(place.volume), source.mark(), source.size);
        let (image, from) = self.to_fill(&pool, &name, &mark, size).await?;
        let (sender, pieces) = content::pieces();
        // Neither runs on without who waits for both.
        let copied = tokio::try_join!(
            read(&source.image, size, from, sender),
            content::pour(&image, &mark, from, size, progress, pieces),
        );
        // Closed in any case: it holds the lock.
        let closed = image.close().await.map_err(of_ceph);
        copied?;
        closed?;
        // What is gone reads as zeroes, and nobody tells who only reads.
        match self.source(named).await {
            Ok(now) if now.is(&source) => {}
            Ok(_) | Err(StoreError::Source(SourceError::NoImage(_) | SourceError::NoSnapshot(_))) => {
                return Err(SourceError::Changed(named.clone()).into());
            }
            Err(error) => return Err(error),
        }
        self.finish(&pool, place, &names::unfinished(&name), &name).await
    }
}

async fn inspected(source: &Source) -> Result<Inspected, StoreError> {
    let waiting = Waiting { image: source.image.clone(), size: source.size, runtime: Handle::current() };
    let looked = spawn_blocking(move || inspect(&waiting, ImageFormat::Raw)).await;
    looked.unwrap_or_else(|failed| panicked(&failed)).map_err(StoreError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_where_it_is_read_is_refused() {
        let both = |features| (unreadable(features, false).is_some(), unreadable(features, true).is_some());
        assert_eq!(both(0b11_1111), (false, false), "what images usually have");
        assert_eq!(both(features::JOURNALING | 1), (true, false));
        assert_eq!(both(features::DIRTY_CACHE | 1), (true, false));
        assert_eq!(both(features::MIGRATING | 1), (true, true));
        assert_eq!(both(features::NON_PRIMARY | 1), (true, true));
        assert_eq!(both(1 << 40), (true, true));
    }
}
