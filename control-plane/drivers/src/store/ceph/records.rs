//! What the store keeps in the database: keys of volumes, and whom it fenced.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bmi_types::{CephKey, Timestamp, VolumeId};
use uuid::Uuid;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the store's records")]
pub struct RecordError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A boot volume's cephx user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeKey {
    /// Its name, without `client.`.
    pub user: String,
    /// Its key.
    pub key: CephKey,
    /// What it may do at the OSDs, as it was found out before anybody had the key: who has it can change what the image
    /// says of itself.
    pub caps: String,
    /// What the volume's objects are named by.
    pub image: String,
    /// What its header said then, and those of what it was before: a line each, with a SHA-256 and the numbers of snapshots.
    pub header: String,
}

/// A Ceph client that may do nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// As a blocklist has it: `ip:port/nonce`.
    pub address: String,
    /// The volume it was fenced from.
    pub volume: VolumeId,
    /// When.
    pub at: Timestamp,
}

/// The store's own tables. Keys are sealed in them.
#[async_trait]
pub trait CephRecords: Send + Sync {
    /// The users of volumes, of those that have one.
    async fn keys(&self, volumes: &[VolumeId]) -> Result<BTreeMap<VolumeId, VolumeKey>, RecordError>;

    /// Notes a volume's user, instead of the one before.
    async fn key_put(&self, volume: VolumeId, key: &VolumeKey) -> Result<(), RecordError>;

    /// Forgets a volume's user.
    async fn key_remove(&self, volume: VolumeId) -> Result<(), RecordError>;

    /// Notes that a client is about to be fenced.
    async fn fence_put(&self, fence: &Fence) -> Result<(), RecordError>;

    /// Every client that was fenced and not let go yet.
    async fn fences(&self) -> Result<Vec<Fence>, RecordError>;

    /// Who this database is, for a pool: the same for as long as it lives, and after it was restored or moved.
    async fn owner(&self) -> Result<Uuid, RecordError>;

    /// Forgets a client.
    async fn fence_remove(&self, address: &str) -> Result<(), RecordError>;
}
