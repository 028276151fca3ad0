//! The `ceph` store's tables: users of boot volumes, their keys sealed, and clients that were fenced.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bmi_auth::{MasterKey, SealError};
use bmi_drivers::store::ceph::{CephRecords, Fence, RecordError, VolumeKey};
use bmi_types::{CephKey, Secret, Timestamp, VolumeId};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::{ceph_fences, ceph_keys};
use crate::sealed::ceph_key_purpose as key_purpose;
use crate::{Db, DbError};

/// The store's records in this database.
#[derive(Debug, Clone)]
pub struct CephTables {
    db: Db,
    master_key: MasterKey,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the database failed")]
    Db(#[from] DbError),
    #[error("a key cannot be sealed or opened")]
    Seal(#[from] SealError),
    #[error("what is sealed is no key")]
    Key,
}

fn told(error: impl Into<Error>) -> RecordError {
    RecordError(Box::new(error.into()))
}

impl CephTables {
    /// Takes the database and the key that secrets are sealed under.
    #[must_use]
    pub const fn new(db: Db, master_key: MasterKey) -> Self {
        Self { db, master_key }
    }

    fn open(&self, volume: VolumeId, sealed: &str) -> Result<CephKey, Error> {
        let key = self.master_key.open(&key_purpose(volume), sealed)?;
        CephKey::parse(key.expose()).ok_or(Error::Key)
    }
}

#[async_trait]
impl CephRecords for CephTables {
    async fn keys(&self, volumes: &[VolumeId]) -> Result<BTreeMap<VolumeId, VolumeKey>, RecordError> {
        let wanted: Vec<Key> = volumes.iter().copied().map(Key::from).collect();
        let read = self.db.system_read(move |tx| {
            let rows: Vec<(Key, String, String)> = ceph_keys::table
                .filter(ceph_keys::volume_id.eq_any(wanted))
                .select((ceph_keys::volume_id, ceph_keys::user_name, ceph_keys::key_sealed))
                .load(tx.sql())?;
            Ok::<_, DbError>(rows)
        });
        let key = |(volume, user, sealed): (Key, String, String)| {
            let volume = VolumeId::from(volume);
            Ok((volume, VolumeKey { user, key: self.open(volume, &sealed)? }))
        };
        read.await.map_err(told)?.into_iter().map(key).collect::<Result<_, Error>>().map_err(told)
    }

    async fn key_put(&self, volume: VolumeId, key: &VolumeKey) -> Result<(), RecordError> {
        let secret = Secret::new(key.key.expose().to_owned());
        let sealed = self.master_key.seal(&key_purpose(volume), &secret).map_err(told)?;
        let user = key.user.clone();
        let written = self.db.system_write(move |tx| {
            let id = Key::from(volume);
            diesel::delete(ceph_keys::table.filter(ceph_keys::volume_id.eq(id))).execute(tx.sql())?;
            let row = (
                ceph_keys::volume_id.eq(id),
                ceph_keys::user_name.eq(user),
                ceph_keys::key_sealed.eq(sealed),
            );
            diesel::insert_into(ceph_keys::table).values(row).execute(tx.sql())?;
            Ok::<_, DbError>(())
        });
        written.await.map_err(told)
    }

    async fn key_remove(&self, volume: VolumeId) -> Result<(), RecordError> {
        let written = self.db.system_write(move |tx| {
            let row = ceph_keys::table.filter(ceph_keys::volume_id.eq(Key::from(volume)));
            diesel::delete(row).execute(tx.sql())?;
            Ok::<_, DbError>(())
        });
        written.await.map_err(told)
    }

    async fn fence_put(&self, fence: &Fence) -> Result<(), RecordError> {
        let Fence { address, volume, at } = fence.clone();
        let written = self.db.system_write(move |tx| {
            let row = ceph_fences::table.filter(ceph_fences::address.eq(&address));
            diesel::delete(row).execute(tx.sql())?;
            let row = (
                ceph_fences::address.eq(&address),
                ceph_fences::volume_id.eq(Key::from(volume)),
                ceph_fences::fenced_at.eq(at.micros()),
            );
            diesel::insert_into(ceph_fences::table).values(row).execute(tx.sql())?;
            Ok::<_, DbError>(())
        });
        written.await.map_err(told)
    }

    async fn fences(&self) -> Result<Vec<Fence>, RecordError> {
        let read = self.db.system_read(|tx| {
            let rows: Vec<(String, Key, i64)> = ceph_fences::table
                .select((ceph_fences::address, ceph_fences::volume_id, ceph_fences::fenced_at))
                .order(ceph_fences::address)
                .load(tx.sql())?;
            Ok::<_, DbError>(rows)
        });
        let fence = |(address, volume, at): (String, Key, i64)| Fence {
            address,
            volume: volume.into(),
            at: Timestamp::from_micros(at),
        };
        Ok(read.await.map_err(told)?.into_iter().map(fence).collect())
    }

    async fn fence_remove(&self, address: &str) -> Result<(), RecordError> {
        let address = address.to_owned();
        let written = self.db.system_write(move |tx| {
            diesel::delete(ceph_fences::table.filter(ceph_fences::address.eq(address))).execute(tx.sql())?;
            Ok::<_, DbError>(())
        });
        written.await.map_err(told)
    }
}
