//! The store's verbs, each in the file of its kind.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{ByteSize, ImageFormat, TagId, VolumeId};
use bytes::Bytes;
use serde_json::{Value, json};

use super::fault::{of_ceph, of_command};
use super::records::RecordError;
use super::removal::remove_by_name;
use super::{CephStore, names};
use crate::image::{ConverterError, Inspected};
use crate::store::{
    Access, Backing, DataStore, ImageContent, Item, ItemKind, Place, Progress, Sealed, StoreError,
    StoredSource, Usage,
};

/// How often it is looked whether this client is on the blocklist: it never comes off it.
const LOOK: Duration = Duration::from_secs(5);
/// `ESHUTDOWN`, which Ceph calls `EBLOCKLISTED`.
const BLOCKLISTED: i32 = 108;

impl From<RecordError> for StoreError {
    fn from(error: RecordError) -> Self {
        Self::Records(error.0)
    }
}

/// A list of monitors with commas only. Files have blanks between them as well, or both (Ceph's own minimal one has blanks); agents
/// take commas.
fn with_commas(mon_host: &str) -> String {
    let each = mon_host.split_whitespace().map(|some| some.trim_matches(',')).filter(|some| !some.is_empty());
    each.collect::<Vec<&str>>().join(",")
}

#[async_trait]
impl DataStore for CephStore {
    async fn image_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.created(place, &names::image(place.volume), size).await
    }

    async fn image_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.written(place, &names::image(place.volume), offset, bytes).await
    }

    async fn image_import(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.copied(place, &names::image(place.volume), source, progress).await
    }

    async fn source_inspect(&self, source: &StoredSource) -> Result<Inspected, StoreError> {
        self.source_looked_at(source).await
    }

    async fn image_import_stored(
        &self,
        place: Place,
        source: &StoredSource,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.source_copied(place, source, progress).await
    }

    async fn upload_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.created(place, &names::upload(place.volume), size).await
    }

    async fn upload_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.written(place, &names::upload(place.volume), offset, bytes).await
    }

    async fn upload_copy(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.copied(place, &names::upload(place.volume), source, progress).await
    }

    async fn upload_observe(&self, place: Place) -> Result<Option<ByteSize>, StoreError> {
        Ok(self.size_of(place, &names::upload(place.volume)).await?.map(ByteSize::new))
    }

    async fn upload_inspect(&self, place: Place, format: ImageFormat) -> Result<Inspected, StoreError> {
        self.looked_at(place, format).await
    }

    async fn upload_remove(&self, place: Place) -> Result<(), StoreError> {
        let pool = self.namespace(place.project).await?;
        for name in [names::upload(place.volume), names::unfinished(&names::upload(place.volume))] {
            remove_by_name(&pool, &name).await?;
        }
        Ok(())
    }

    async fn image_convert(
        &self,
        place: Place,
        format: ImageFormat,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.converted(place, format, progress).await
    }

    fn conversion_ready(&self) -> Result<(), ConverterError> {
        self.0.converter.ready()
    }

    async fn image_seal(&self, place: Place, progress: Progress<'_>) -> Result<Sealed, StoreError> {
        self.sealed(place, progress).await
    }

    async fn image_resize(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.resized(place, size).await
    }

    async fn image_read(&self, place: Place, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        self.read(place, offset, length).await
    }

    async fn image_flatten(&self, place: Place, progress: Progress<'_>) -> Result<(), StoreError> {
        self.flattened(place, progress).await
    }

    async fn image_observe(&self, place: Place) -> Result<ImageContent, StoreError> {
        self.observed(place).await
    }

    async fn image_remove(&self, place: Place) -> Result<(), StoreError> {
        self.image_gone(place).await
    }

    async fn volume_clone(&self, golden: Place, volume: Place) -> Result<(), StoreError> {
        self.cloned(golden, volume).await
    }

    async fn volume_put(&self, volume: Place, content: Bytes) -> Result<(), StoreError> {
        self.put(volume, content).await
    }

    async fn volume_exists(&self, volume: Place) -> Result<bool, StoreError> {
        self.is_there(volume).await
    }

    async fn volume_remove(&self, volume: Place) -> Result<(), StoreError> {
        self.volume_gone(volume).await
    }

    async fn items(&self) -> Result<Vec<Item>, StoreError> {
        self.everything().await
    }

    async fn set_aside(&self, item: Item) -> Result<(), StoreError> {
        self.aside(item).await
    }

    async fn aside_expire(&self, keep: Duration) -> Result<u64, StoreError> {
        self.aside_gone(keep).await
    }

    async fn reclaim(&self) -> Result<u64, StoreError> {
        self.reclaim_all().await
    }

    async fn access_ensure(&self, boot: Place, config: Place) -> Result<(), StoreError> {
        self.key_ensure(boot, Some(config)).await
    }

    async fn access_exists(&self, boot: Place) -> Result<bool, StoreError> {
        self.key_exists(boot.volume).await
    }

    async fn access(&self, boots: &[Place]) -> Result<BTreeMap<VolumeId, Access>, StoreError> {
        let settings = &self.0.settings;
        let mon_host = match &settings.broker_mon_host {
            Some(mon_host) => mon_host.clone(),
            None => self.0.cluster.option("mon_host").map_err(of_ceph)?,
        };
        let mon_host = with_commas(&mon_host);
        let volumes: Vec<VolumeId> = boots.iter().map(|place| place.volume).collect();
        let keys = self.0.records.keys(&volumes).await?;
        let access = keys.into_iter().map(|(volume, record)| {
            let (mon_host, pool) = (mon_host.clone(), settings.pool.clone());
            (volume, Access { mon_host, pool, user: record.user, key: record.key })
        });
        Ok(access.collect())
    }

    async fn tag_create(&self, boot: Place, config: Place, tag: TagId) -> Result<(), StoreError> {
        self.tagged(boot, config, tag).await
    }

    async fn tags(&self, boot: Place) -> Result<Vec<TagId>, StoreError> {
        self.tags_of(boot).await
    }

    async fn tag_remove(&self, boot: Place, config: Place, tag: TagId) -> Result<(), StoreError> {
        self.untagged(boot, config, tag).await
    }

    async fn roll_back(
        &self,
        boot: Place,
        config: Place,
        tag: TagId,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.rolled_back(boot, config, tag, progress).await
    }

    async fn image_snapshot(
        &self,
        boot: Place,
        config: Place,
        tag: TagId,
        image: Place,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.image_of_tag(boot, config, tag, image, progress).await
    }

    async fn fence(&self, boot: Place, config: Place) -> Result<(), StoreError> {
        self.fenced(boot, config).await
    }

    async fn item_used(&self, item: Item) -> Result<ByteSize, StoreError> {
        let id = item.place.volume;
        let names = match item.kind {
            ItemKind::Image => vec![names::image(id), names::upload(id)],
            // What it was before it went back to tags is a part of it.
            ItemKind::Volume => {
                let pool = self.namespace(item.place.project).await?;
                let entries = pool.images().await.map_err(of_ceph)?;
                let former = entries.into_iter().map(|entry| entry.name);
                let former = former.filter(|name| names::is_former_of(name, id));
                former.chain([names::volume(id)]).collect()
            }
        };
        let mut used = 0_u64;
        for name in names {
            used = used.saturating_add(self.own_bytes(item.place, &name).await?);
        }
        Ok(ByteSize::new(used))
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let full = self.0.cluster.command(json!({"prefix": "df"})).await.map_err(of_command)?;
        let pools = full.get("pools").and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |pool: &&Value| pool.get("name").and_then(Value::as_str) == Some(&self.0.settings.pool);
        let stats = pools.iter().find(named).and_then(|pool| pool.get("stats"));
        let bytes = |name: &str| stats.and_then(|stats| stats.get(name)).and_then(Value::as_u64);
        let (Some(stored), Some(available)) = (bytes("stored"), bytes("max_avail")) else {
            return Err(StoreError::Unusable(format!(
                "`df` does not tell of the pool {}",
                self.0.settings.pool
            )));
        };
        Ok(Usage { capacity: ByteSize::new(stored.saturating_add(available)), used: ByteSize::new(stored) })
    }

    async fn lost(&self) -> StoreError {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.0.root.namespaces().await
                && error.errno() == BLOCKLISTED
            {
                return of_ceph(error);
            }
        }
    }

    fn backing(&self, volume: Place) -> Backing {
        let (namespace, image) = Self::volume_name(volume);
        Backing::Rbd { namespace, image }
    }

    fn kind(&self) -> &'static str {
        "ceph"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_told_with_commas_between_them() {
        let both = "[v2:10.0.0.1:3300,v1:10.0.0.1:6789]";
        for (file, told) in [
            ("10.0.0.1", "10.0.0.1".to_owned()),
            ("10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2".to_owned()),
            ("10.0.0.1, 10.0.0.2 ,10.0.0.3", "10.0.0.1,10.0.0.2,10.0.0.3".to_owned()),
            (" 10.0.0.1\t10.0.0.2\n", "10.0.0.1,10.0.0.2".to_owned()),
            (&format!("{both} {both}"), format!("{both},{both}")),
        ] {
            assert_eq!(with_commas(file), told);
        }
    }
}
