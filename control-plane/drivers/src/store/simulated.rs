//! A store in memory, for tests of what uses a store. It keeps the same invariants, and content is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{ByteSize, ImageFormat, TagId, VolumeId};
use bytes::Bytes;

use crate::image::{ConverterError, Inspected};

use super::{
    Access, Backing, DataStore, ImageContent, Item, ItemKind, Place, Progress, Sealed, SourceError,
    StoreError, StoredSource, Usage, source_size, within,
};

/// A simulated store.
#[derive(Debug, Default)]
pub struct SimulatedStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uploads: BTreeMap<Place, ByteSize>,
    open: BTreeMap<Place, ByteSize>,
    golden: BTreeMap<Place, ByteSize>,
    volumes: BTreeMap<Place, ByteSize>,
    tags: BTreeSet<(Place, TagId)>,
    aside: u64,
}

impl State {
    /// The size of a volume that has a tag.
    fn tagged(&self, volume: Place, tag: TagId) -> Result<ByteSize, StoreError> {
        let size = *self.volumes.get(&volume).ok_or(StoreError::Absent(volume))?;
        if self.tags.contains(&(volume, tag)) {
            Ok(size)
        } else {
            Err(StoreError::NoTag { place: volume, tag })
        }
    }
}

impl SimulatedStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every volume there is.
    #[must_use]
    pub fn volumes(&self) -> Vec<Place> {
        self.lock().volumes.keys().copied().collect()
    }

    /// Every image there is, open or sealed.
    #[must_use]
    pub fn images(&self) -> Vec<Place> {
        let state = self.lock();
        state.open.keys().chain(state.golden.keys()).copied().collect()
    }

    /// Every uploaded file there is.
    #[must_use]
    pub fn uploads(&self) -> Vec<Place> {
        self.lock().uploads.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DataStore for SimulatedStore {
    async fn image_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.golden.contains_key(&place) {
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        state.open.insert(place, size);
        Ok(())
    }

    async fn image_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let state = self.lock();
        if state.golden.contains_key(&place) {
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        let size = state.open.get(&place).ok_or(StoreError::Absent(place))?.bytes();
        within(place, size, offset, bytes.len() as u64)
    }

    async fn image_import(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let size = source_size(&source)?;
        self.image_create(place, ByteSize::new(size)).await?;
        progress(size, size);
        Ok(())
    }

    async fn source_inspect(&self, _source: &StoredSource) -> Result<Inspected, StoreError> {
        Err(SourceError::NoneHere(self.kind()).into())
    }

    async fn image_import_stored(
        &self,
        _place: Place,
        _source: &StoredSource,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        Err(SourceError::NoneHere(self.kind()).into())
    }

    async fn upload_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.lock().uploads.insert(place, size);
        Ok(())
    }

    async fn upload_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let size = self.lock().uploads.get(&place).ok_or(StoreError::Absent(place))?.bytes();
        within(place, size, offset, bytes.len() as u64)
    }

    async fn upload_copy(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let size = source_size(&source)?;
        progress(size, size);
        self.upload_create(place, ByteSize::new(size)).await
    }

    async fn upload_observe(&self, place: Place) -> Result<Option<ByteSize>, StoreError> {
        Ok(self.lock().uploads.get(&place).copied())
    }

    async fn upload_inspect(&self, place: Place, _format: ImageFormat) -> Result<Inspected, StoreError> {
        let state = self.lock();
        let found = state.uploads.get(&place).or_else(|| state.open.get(&place));
        let size = *found.ok_or(StoreError::Absent(place))?;
        Ok(Inspected { virtual_size: size, content: size })
    }

    async fn upload_remove(&self, place: Place) -> Result<(), StoreError> {
        self.lock().uploads.remove(&place);
        Ok(())
    }

    async fn image_convert(
        &self,
        place: Place,
        format: ImageFormat,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let size = self.upload_inspect(place, format).await?.virtual_size;
        self.image_create(place, size).await?;
        progress(size.bytes(), size.bytes());
        Ok(())
    }

    fn conversion_ready(&self) -> Result<(), ConverterError> {
        Ok(())
    }

    async fn image_seal(&self, place: Place, progress: Progress<'_>) -> Result<Sealed, StoreError> {
        let mut state = self.lock();
        if let Some(size) = state.open.remove(&place) {
            state.golden.insert(place, size);
        }
        let size = *state.golden.get(&place).ok_or(StoreError::Absent(place))?;
        progress(size.bytes(), size.bytes());
        Ok(Sealed { size, sha256: "0".repeat(64) })
    }

    async fn image_resize(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.golden.contains_key(&place) {
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        *state.open.get_mut(&place).ok_or(StoreError::Absent(place))? = size;
        Ok(())
    }

    async fn image_read(&self, place: Place, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        let state = self.lock();
        if state.open.contains_key(&place) {
            return Err(StoreError::WrongState { place, state: "not sealed" });
        }
        let size = state.golden.get(&place).ok_or(StoreError::Absent(place))?.bytes();
        let length = size.saturating_sub(offset).min(u64::from(length));
        Ok(Bytes::from(vec![0; usize::try_from(length).unwrap_or(0)]))
    }

    async fn image_flatten(&self, place: Place, progress: Progress<'_>) -> Result<(), StoreError> {
        let state = self.lock();
        let found = state.golden.get(&place).or_else(|| state.open.get(&place));
        let size = found.ok_or(StoreError::Absent(place))?.bytes();
        progress(size, size);
        Ok(())
    }

    async fn image_observe(&self, place: Place) -> Result<ImageContent, StoreError> {
        let state = self.lock();
        let golden = state.golden.get(&place).map(|size| ImageContent::Sealed { size: *size });
        let open = state.open.get(&place).map(|size| ImageContent::Open { size: *size });
        Ok(golden.or(open).unwrap_or(ImageContent::Absent))
    }

    async fn image_remove(&self, place: Place) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.uploads.remove(&place);
        state.open.remove(&place);
        state.golden.remove(&place);
        Ok(())
    }

    async fn volume_clone(&self, golden: Place, volume: Place) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.volumes.contains_key(&volume) {
            return Ok(());
        }
        if state.open.contains_key(&golden) {
            return Err(StoreError::WrongState { place: golden, state: "not sealed" });
        }
        let size = *state.golden.get(&golden).ok_or(StoreError::Absent(golden))?;
        state.volumes.insert(volume, size);
        Ok(())
    }

    async fn volume_put(&self, volume: Place, content: Bytes) -> Result<(), StoreError> {
        self.lock().volumes.insert(volume, ByteSize::new(content.len() as u64));
        Ok(())
    }

    async fn volume_exists(&self, volume: Place) -> Result<bool, StoreError> {
        Ok(self.lock().volumes.contains_key(&volume))
    }

    async fn volume_remove(&self, volume: Place) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.volumes.remove(&volume);
        state.tags.retain(|(of, _)| *of != volume);
        Ok(())
    }

    async fn items(&self) -> Result<Vec<Item>, StoreError> {
        let state = self.lock();
        let images: BTreeSet<&Place> =
            state.open.keys().chain(state.golden.keys()).chain(state.uploads.keys()).collect();
        let images = images.into_iter().map(|place| Item { kind: ItemKind::Image, place: *place });
        let volumes = state.volumes.keys().map(|place| Item { kind: ItemKind::Volume, place: *place });
        Ok(images.chain(volumes).collect())
    }

    async fn set_aside(&self, item: Item) -> Result<(), StoreError> {
        let mut state = self.lock();
        let removed = match item.kind {
            ItemKind::Image => state.open.remove(&item.place).or(state.golden.remove(&item.place)),
            ItemKind::Volume => state.volumes.remove(&item.place),
        };
        state.aside += u64::from(removed.is_some());
        Ok(())
    }

    async fn aside_expire(&self, keep: Duration) -> Result<u64, StoreError> {
        // It has no clock: everything is older than nothing, and younger than everything else.
        if keep.is_zero() { Ok(std::mem::take(&mut self.lock().aside)) } else { Ok(0) }
    }

    async fn item_used(&self, item: Item) -> Result<ByteSize, StoreError> {
        let state = self.lock();
        let size = match item.kind {
            ItemKind::Image => state.golden.get(&item.place).copied(),
            // Nothing is ever written to a simulated clone.
            ItemKind::Volume => None,
        };
        Ok(size.unwrap_or(ByteSize::new(0)))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let state = self.lock();
        let used = state.golden.values().chain(state.volumes.values()).map(|size| size.bytes()).sum();
        Ok(Usage { capacity: ByteSize::new(1 << 50), used: ByteSize::new(used) })
    }

    async fn reclaim(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn access_ensure(&self, _boot: Place, _config: Place) -> Result<(), StoreError> {
        Ok(())
    }

    async fn access_exists(&self, _boot: Place) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn access(&self, _boots: &[Place]) -> Result<BTreeMap<VolumeId, Access>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn tag_create(&self, boot: Place, _config: Place, tag: TagId) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !state.volumes.contains_key(&boot) {
            return Err(StoreError::Absent(boot));
        }
        state.tags.insert((boot, tag));
        Ok(())
    }

    async fn tags(&self, boot: Place) -> Result<Vec<TagId>, StoreError> {
        let state = self.lock();
        if !state.volumes.contains_key(&boot) {
            return Err(StoreError::Absent(boot));
        }
        Ok(state.tags.iter().filter(|(volume, _)| *volume == boot).map(|(_, tag)| *tag).collect())
    }

    async fn tag_remove(&self, boot: Place, _config: Place, tag: TagId) -> Result<(), StoreError> {
        self.lock().tags.remove(&(boot, tag));
        Ok(())
    }

    async fn roll_back(
        &self,
        boot: Place,
        _config: Place,
        tag: TagId,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.lock().tagged(boot, tag).map(drop)
    }

    async fn image_snapshot(
        &self,
        boot: Place,
        _config: Place,
        tag: TagId,
        image: Place,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let size = self.lock().tagged(boot, tag)?;
        self.image_create(image, size).await
    }

    // Its volumes are on one host, whose agent ends a server before it starts another.
    async fn fence(&self, _boot: Place, _config: Place) -> Result<(), StoreError> {
        Ok(())
    }

    fn backing(&self, volume: Place) -> Backing {
        Backing::File(PathBuf::from(format!("/simulated/{volume}.raw")))
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }
}
