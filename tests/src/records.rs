//! The records of a `ceph` store that has no database.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bmi_drivers::store::ceph::{CephRecords, Fence, RecordError, VolumeKey};
use bmi_types::VolumeId;
use uuid::Uuid;

/// A store's records, in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    keys: Mutex<BTreeMap<VolumeId, VolumeKey>>,
    fences: Mutex<BTreeMap<String, Fence>>,
    owner: Uuid,
}

impl MemoryRecords {
    /// Records of another database than all others here.
    #[must_use]
    pub fn of_another() -> Self {
        Self { owner: Uuid::now_v7(), ..Self::default() }
    }

    /// Whether it knows no key and no fence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.lock().unwrap().is_empty() && self.fences.lock().unwrap().is_empty()
    }

    /// Whether nobody was fenced.
    #[must_use]
    pub fn is_fenceless(&self) -> bool {
        self.fences.lock().unwrap().is_empty()
    }

    /// Makes every fence older.
    pub fn age_fences(&self, seconds: i64) {
        for fence in self.fences.lock().unwrap().values_mut() {
            fence.at = bmi_types::Timestamp::from_micros(fence.at.micros() - seconds * 1_000_000);
        }
    }
}

#[async_trait]
impl CephRecords for MemoryRecords {
    async fn keys(&self, volumes: &[VolumeId]) -> Result<BTreeMap<VolumeId, VolumeKey>, RecordError> {
        let keys = self.keys.lock().unwrap();
        Ok(volumes.iter().filter_map(|volume| Some((*volume, keys.get(volume)?.clone()))).collect())
    }

    async fn key_put(&self, volume: VolumeId, key: &VolumeKey) -> Result<(), RecordError> {
        self.keys.lock().unwrap().insert(volume, key.clone());
        Ok(())
    }

    async fn key_remove(&self, volume: VolumeId) -> Result<(), RecordError> {
        self.keys.lock().unwrap().remove(&volume);
        Ok(())
    }

    async fn fence_put(&self, fence: &Fence) -> Result<(), RecordError> {
        self.fences.lock().unwrap().insert(fence.address.clone(), fence.clone());
        Ok(())
    }

    async fn owner(&self) -> Result<Uuid, RecordError> {
        Ok(self.owner)
    }

    async fn fences(&self) -> Result<Vec<Fence>, RecordError> {
        Ok(self.fences.lock().unwrap().values().cloned().collect())
    }

    async fn fence_remove(&self, address: &str) -> Result<(), RecordError> {
        self.fences.lock().unwrap().remove(address);
        Ok(())
    }
}
