//! Images: made, written, imported, converted and sealed.

use std::fs::File;

use bmi_rbd::{Access, Image, Pool};
use bmi_types::{ByteSize, ImageFormat};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::content::{self, Waiting};
use super::fault::of_ceph;
use super::ids::{self, Origin};
use super::removal::remove_by_name;
use super::{CephStore, names};
use crate::image::{Conversion, Inspected, inspect};
use crate::store::{ImageContent, Place, Progress, Sealed, StoreError, source_size, within};

/// Opens an image, if it is there.
pub(super) async fn find(pool: &Pool, name: &str, access: Access) -> Result<Option<Image>, StoreError> {
    match pool.image_open(name, access).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(of_ceph(error)),
    }
}

async fn is_golden(image: &Image) -> Result<bool, StoreError> {
    Ok(image.snapshots().await.map_err(of_ceph)?.iter().any(|name| name == names::GOLDEN))
}

impl CephStore {
    pub(super) async fn observed(&self, place: Place) -> Result<ImageContent, StoreError> {
        let pool = self.namespace(place.project).await?;
        let Some(image) = find(&pool, &names::image(place.volume), Access::ReadOnly).await? else {
            return Ok(ImageContent::Absent);
        };
        let size = ByteSize::new(image.size().await.map_err(of_ceph)?);
        let golden = is_golden(&image).await?;
        Ok(if golden { ImageContent::Sealed { size } } else { ImageContent::Open { size } })
    }

    pub(super) async fn not_sealed(&self, place: Place) -> Result<(), StoreError> {
        match self.observed(place).await? {
            ImageContent::Sealed { .. } => Err(StoreError::WrongState { place, state: "sealed" }),
            ImageContent::Absent | ImageContent::Open { .. } => Ok(()),
        }
    }

    /// Gives an unfinished image its name, instead of what has it. What was sealed meanwhile stays, and the
    /// other goes.
    pub(super) async fn finish(
        &self,
        pool: &Pool,
        place: Place,
        unfinished: &str,
        name: &str,
    ) -> Result<(), StoreError> {
        if let Some(image) = find(pool, name, Access::ReadOnly).await?
            && is_golden(&image).await?
        {
            remove_by_name(pool, unfinished).await?;
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        remove_by_name(pool, name).await?;
        pool.image_rename(unfinished, name).await.map_err(of_ceph)
    }

    /// Makes an empty image of a size, unless it is there.
    pub(super) async fn created(&self, place: Place, name: &str, size: ByteSize) -> Result<(), StoreError> {
        self.not_sealed(place).await?;
        let pool = self.namespace_ensure(place.project).await?;
        if let Some(image) = find(&pool, name, Access::ReadOnly).await?
            && image.size().await.map_err(of_ceph)? == size.bytes()
        {
            return Ok(());
        }
        let unfinished = self.begin(&pool, name, Origin::Empty(size.bytes())).await?;
        self.finish(&pool, place, &unfinished, name).await
    }

    /// Writes into an image that is there, and nothing beyond its end.
    pub(super) async fn written(
        &self,
        place: Place,
        name: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let pool = self.namespace(place.project).await?;
        let image = find(&pool, name, Access::ReadWrite).await?;
        let image = match image {
            Some(image) => image,
            None => {
                self.not_sealed(place).await?;
                return Err(StoreError::Absent(place));
            }
        };
        if is_golden(&image).await? {
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        let size = image.size().await.map_err(of_ceph)?;
        within(place, size, offset, bytes.len() as u64)?;
        content::write(&image, offset, &bytes).await?;
        image.close().await.map_err(of_ceph)
    }

    /// Replaces an image by a copy of a file. One that was cut off goes on where it was.
    pub(super) async fn copied(
        &self,
        place: Place,
        name: &str,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.not_sealed(place).await?;
        let size = source_size(&source)?;
        let pool = self.namespace_ensure(place.project).await?;
        let mark = content::fingerprint(&source)?;
        let (image, from) = self.to_fill(&pool, name, &mark, size).await?;
        let filled = content::fill(&image, source, size, from, progress).await;
        // Closed in any case: it holds the lock.
        let closed = image.close().await.map_err(of_ceph);
        filled.and(closed)?;
        self.finish(&pool, place, &names::unfinished(name), name).await
    }

    /// An unfinished image of a size to copy into, and from where on: one that was begun under the same mark goes on where
    /// it was.
    pub(super) async fn to_fill(
        &self,
        pool: &Pool,
        name: &str,
        mark: &str,
        size: u64,
    ) -> Result<(Image, u64), StoreError> {
        let unfinished = names::unfinished(name);
        let mut from = None;
        if let Some(image) = find(pool, &unfinished, Access::ReadOnly).await?
            && image.size().await.map_err(of_ceph)? == size
        {
            from = content::noted(&image, mark).await?;
        }
        let from = match from {
            Some(from) => from,
            None => {
                self.begin(pool, name, Origin::Empty(size)).await?;
                0
            }
        };
        let image = pool.image_open(&unfinished, Access::ReadWrite).await.map_err(of_ceph)?;
        content::note(&image, mark, from).await?;
        Ok((image, from))
    }

    /// Looks at an image or an upload of a declared format.
    pub(super) async fn looked_at(&self, place: Place, format: ImageFormat) -> Result<Inspected, StoreError> {
        let name = match format {
            ImageFormat::Raw => names::image(place.volume),
            ImageFormat::Qcow2 => names::upload(place.volume),
        };
        let pool = self.namespace(place.project).await?;
        let image = find(&pool, &name, Access::ReadOnly).await?.ok_or(StoreError::Absent(place))?;
        let size = image.size().await.map_err(of_ceph)?;
        let waiting = Waiting { image, size, runtime: Handle::current() };
        let looked = spawn_blocking(move || inspect(&waiting, format)).await;
        looked.unwrap_or_else(|failed| panicked(&failed)).map_err(StoreError::from)
    }

    /// Replaces an image by the disk that an upload holds. The upload is copied to this host first, where nobody changes it
    /// and a tool without a network can read it.
    pub(super) async fn converted(
        &self,
        place: Place,
        format: ImageFormat,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.not_sealed(place).await?;
        let pool = self.namespace(place.project).await?;
        let upload = find(&pool, &names::upload(place.volume), Access::ReadOnly).await?;
        let upload = upload.ok_or(StoreError::Absent(place))?;
        let size = upload.size().await.map_err(of_ceph)?;
        let source = content::to_file(&upload, size, self.staging_file()?).await?;
        let mut disk = self.staging_file()?;
        let converter = self.0.converter.clone();
        let (wanted, unwanted) = tokio::sync::oneshot::channel::<()>();
        let convert = spawn_blocking(move || {
            // Looked at again: these are the bytes that are converted.
            let size = inspect(&source, format)?.virtual_size;
            disk.set_len(size.bytes()).map_err(|error| StoreError::io("make room to convert", error))?;
            let conversion = Conversion { source: &source, format, destination: &mut disk, size };
            converter.convert(&conversion, &|_| {}, &|| !wanted.is_closed())?;
            Ok::<File, StoreError>(disk)
        });
        let converted = convert.await;
        drop(unwanted);
        let disk = converted.unwrap_or_else(|failed| Err(StoreError::Unusable(failed.to_string())))?;
        self.copied(place, &names::image(place.volume), disk, progress).await
    }

    /// A file without a name, gone with its last user.
    fn staging_file(&self) -> Result<File, StoreError> {
        let made = tempfile::tempfile_in(&self.0.settings.staging);
        made.map_err(|error| {
            StoreError::io(format!("make a file in {}", self.0.settings.staging.display()), error)
        })
    }

    /// Seals an image: from here on it is its snapshot that is meant.
    pub(super) async fn sealed(&self, place: Place, progress: Progress<'_>) -> Result<Sealed, StoreError> {
        let pool = self.namespace(place.project).await?;
        let name = names::image(place.volume);
        let image = find(&pool, &name, Access::ReadWrite).await?.ok_or(StoreError::Absent(place))?;
        if !is_golden(&image).await? {
            let id = image.id().await.map_err(of_ceph)?;
            if ids::is_ambiguous(&pool, &id).await? {
                let what = format!("{place} has an id that another image's begins with; import it again");
                return Err(StoreError::Foreign(what));
            }
            match image.snapshot_create(names::GOLDEN).await {
                Err(error) if !error.exists() => return Err(of_ceph(error)),
                _ => {}
            }
        }
        image.close().await.map_err(of_ceph)?;
        let image = pool.image_open(&name, Access::ReadOnly).await.map_err(of_ceph)?;
        image.snapshot_look_at(names::GOLDEN).await.map_err(of_ceph)?;
        let size = image.size().await.map_err(of_ceph)?;
        let sha256 = content::digest(&image, size, progress).await?;
        Ok(Sealed { size: ByteSize::new(size), sha256 })
    }

    /// Clones a golden image. The clone has its name when it is whole.
    pub(super) async fn cloned(&self, golden: Place, volume: Place) -> Result<(), StoreError> {
        let name = names::volume(volume.volume);
        let pool = self.namespace_ensure(volume.project).await?;
        if self.is_there(volume).await? {
            return Ok(());
        }
        match self.observed(golden).await? {
            ImageContent::Sealed { .. } => {}
            ImageContent::Absent => return Err(StoreError::Absent(golden)),
            ImageContent::Open { .. } => {
                return Err(StoreError::WrongState { place: golden, state: "not sealed" });
            }
        }
        let parent = self.namespace(golden.project).await?;
        let image = names::image(golden.volume);
        let unfinished = self.begin(&pool, &name, Origin::Snapshot(&parent, &image, names::GOLDEN)).await?;
        pool.image_rename(&unfinished, &name).await.map_err(of_ceph)
    }

    /// Makes a volume with a content of its own, instead of what is there.
    pub(super) async fn put(&self, volume: Place, bytes: Bytes) -> Result<(), StoreError> {
        let name = names::volume(volume.volume);
        let pool = self.namespace_ensure(volume.project).await?;
        let unfinished = self.begin(&pool, &name, Origin::Empty(bytes.len() as u64)).await?;
        let image = pool.image_open(&unfinished, Access::ReadWrite).await.map_err(of_ceph)?;
        let written = content::write(&image, 0, &bytes).await;
        let closed = image.close().await.map_err(of_ceph);
        written.and(closed)?;
        self.finish(&pool, volume, &unfinished, &name).await
    }

    /// Whether an image of a name is there, and its size.
    pub(super) async fn size_of(&self, place: Place, name: &str) -> Result<Option<u64>, StoreError> {
        let pool = self.namespace(place.project).await?;
        match find(&pool, name, Access::ReadOnly).await? {
            Some(image) => Ok(Some(image.size().await.map_err(of_ceph)?)),
            None => Ok(None),
        }
    }

    /// Whether a volume is there, whole. It is not opened: somebody may have written to it.
    pub(super) async fn is_there(&self, volume: Place) -> Result<bool, StoreError> {
        let (name, pool) = (names::volume(volume.volume), self.namespace(volume.project).await?);
        Ok(pool.images().await.map_err(of_ceph)?.iter().any(|entry| entry.name == name))
    }

    /// Bytes that an image takes by itself, its snapshots included; nothing when it is not there.
    pub(super) async fn own_bytes(&self, place: Place, name: &str) -> Result<u64, StoreError> {
        let pool = self.namespace(place.project).await?;
        if let Some(volume) = names::volume_in(name) {
            self.header_check(&pool, volume).await?;
        }
        let Some(image) = find(&pool, name, Access::ReadOnly).await? else { return Ok(0) };
        let mut used = 0_u64;
        // From the youngest on, since the image is looked at as it was then.
        for snapshot in image.snapshots().await.map_err(of_ceph)?.iter().rev() {
            let since = match image.own_bytes(Some(snapshot)).await {
                // In the snapshots' own trash, where none can be looked at: what it keeps by itself is not
                // counted.
                Err(error) if error.is_absent() => continue,
                since => since.map_err(of_ceph)?,
            };
            used = used.saturating_add(since);
            image.snapshot_look_at(snapshot).await.map_err(of_ceph)?;
        }
        Ok(used.saturating_add(image.own_bytes(None).await.map_err(of_ceph)?))
    }
}

pub(super) fn panicked(failed: &tokio::task::JoinError) -> Result<Inspected, crate::image::Refusal> {
    Err(crate::image::Refusal::Unreadable(std::io::Error::other(failed.to_string())))
}
