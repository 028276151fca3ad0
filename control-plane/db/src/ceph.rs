//! The `ceph` store's tables: users of boot volumes, their keys sealed, and clients that were fenced.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bmi_auth::{MasterKey, SealError};
use bmi_drivers::store::ceph::{CephRecords, Fence, RecordError, VolumeKey};
use bmi_types::{CephKey, Secret, Timestamp, VolumeId};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::Key;
use crate::schema::{ceph_fences, ceph_keys, ceph_owner};
use crate::sealed::ceph_key_purpose as key_purpose;
use crate::{Db, DbError};

/// The store's records in this database.
#[derive(Debug, Clone)]
pub struct CephTables {
    db: Db,
    master_key: MasterKey,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = ceph_keys)]
struct Row {
    volume_id: Key,
    user_name: String,
    key_sealed: String,
    caps: String,
    image: String,
    header: String,
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
            let rows: Vec<Row> = ceph_keys::table
                .filter(ceph_keys::volume_id.eq_any(wanted))
                .select(Row::as_select())
                .load(tx.sql())?;
            Ok::<_, DbError>(rows)
        });
        let key = |row: Row| {
            let volume = VolumeId::from(row.volume_id);
            let key = self.open(volume, &row.key_sealed)?;
            let Row { user_name: user, caps, image, header, .. } = row;
            Ok((volume, VolumeKey { user, key, caps, image, header }))
        };
        read.await.map_err(told)?.into_iter().map(key).collect::<Result<_, Error>>().map_err(told)
    }

    async fn key_put(&self, volume: VolumeId, key: &VolumeKey) -> Result<(), RecordError> {
        let secret = Secret::new(key.key.expose().to_owned());
        let row = Row {
            volume_id: volume.into(),
            user_name: key.user.clone(),
            key_sealed: self.master_key.seal(&key_purpose(volume), &secret).map_err(told)?,
            caps: key.caps.clone(),
            image: key.image.clone(),
            header: key.header.clone(),
        };
        let written = self.db.system_write(move |tx| {
            let before = ceph_keys::table.filter(ceph_keys::volume_id.eq(row.volume_id));
            diesel::delete(before).execute(tx.sql())?;
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

    async fn owner(&self) -> Result<Uuid, RecordError> {
        let found = self.db.system_write(|tx| {
            let found: Option<Key> = ceph_owner::table.select(ceph_owner::id).first(tx.sql()).optional()?;
            if let Some(id) = found {
                return Ok::<_, DbError>(id.0);
            }
            // Of two replicas that come here at once one has no room for its row, and starts again.
            let id = Uuid::now_v7();
            let row = (ceph_owner::position.eq(1), ceph_owner::id.eq(Key(id)));
            diesel::insert_into(ceph_owner::table).values(row).execute(tx.sql())?;
            Ok(id)
        });
        found.await.map_err(told)
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
