//! Keys of boot volumes: made when the volume is, replaced by a fence, gone with the volume.

use bmi_rbd::Access;
use bmi_types::{CephKey, VolumeId};
use serde_json::{Value, json};

use super::CephStore;
use super::caps::{self, Named};
use super::fault::{of_ceph, of_command};
use super::records::VolumeKey;
use crate::store::{Place, StoreError};

/// `ENOENT`.
const ENOENT: i32 = 2;
/// How deep ancestors are followed. Images are at most three deep; more is a defect, and no key is made.
const ANCESTORS_MAX: usize = 8;

impl CephStore {
    /// The cephx user of a volume, without `client.`. It begins as the control plane's own, since that is all that the
    /// monitors let it make.
    fn user(&self, volume: VolumeId) -> String {
        format!("{}-{volume}", self.0.settings.user)
    }

    /// Makes a volume's user with the rights it needs now, or finds it, and notes its key.
    pub(super) async fn key_ensure(&self, volume: Place, config: Option<Place>) -> Result<(), StoreError> {
        let osd = self.caps(volume, config).await?;
        let user = self.user(volume.volume);
        let entity = format!("client.{user}");
        let caps = json!(["mon", caps::MON, "mgr", caps::MGR, "osd", osd]);
        // Rights first: a user that is there with others is not found by `get-or-create`.
        let found = self.0.cluster.command(json!({"prefix": "auth get", "entity": entity})).await;
        match found {
            Ok(_) => {
                let change = json!({"prefix": "auth caps", "entity": entity, "caps": caps});
                self.0.cluster.command(change).await.map_err(of_command)?;
            }
            Err(error) if error.errno() == ENOENT => {}
            Err(error) => return Err(of_command(error)),
        }
        let make = json!({"prefix": "auth get-or-create", "entity": entity, "caps": caps});
        let made = self.0.cluster.command(make).await.map_err(of_command)?;
        let key = key_of(&made).ok_or_else(|| StoreError::Unusable(format!("{entity} has no key")))?;
        self.0.records.key_put(volume.volume, &VolumeKey { user, key }).await?;
        Ok(())
    }

    /// Removes a volume's user: who holds its key cannot connect any more.
    pub(super) async fn key_remove(&self, volume: VolumeId) -> Result<(), StoreError> {
        let entity = format!("client.{}", self.user(volume));
        let removed = self.0.cluster.command(json!({"prefix": "auth rm", "entity": entity})).await;
        match removed {
            Ok(_) => {}
            Err(error) if error.errno() == ENOENT => {}
            Err(error) => return Err(of_command(error)),
        }
        Ok(self.0.records.key_remove(volume).await?)
    }

    /// The OSDs' part of a volume's rights.
    async fn caps(&self, volume: Place, config: Option<Place>) -> Result<String, StoreError> {
        let (boot, ancestors) = self.named(volume).await?;
        let config = match config {
            Some(config) => Some(self.named(config).await?.0),
            None => None,
        };
        Ok(caps::osd(&self.0.settings.pool, &boot, config.as_ref(), &ancestors))
    }

    /// A volume and the images it was cloned from, as caps name them.
    async fn named(&self, volume: Place) -> Result<(Named, Vec<Named>), StoreError> {
        let (namespace, name) = Self::volume_name(volume);
        let pool = self.namespace(volume.project).await?;
        let image = pool
            .image_open(&name, Access::ReadOnly)
            .await
            .map_err(|error| if error.is_absent() { StoreError::Absent(volume) } else { of_ceph(error) })?;
        let id = image.id().await.map_err(of_ceph)?;
        let mut ancestors = Vec::new();
        let mut youngest = image;
        while let Some(parent) = youngest.parent().await.map_err(of_ceph)? {
            if ancestors.len() == ANCESTORS_MAX {
                return Err(StoreError::Unusable(format!("{volume} has too many ancestors")));
            }
            let pool =
                self.0.cluster.pool(&self.0.settings.pool, &parent.namespace).await.map_err(of_ceph)?;
            youngest = pool.image_open(&parent.image, Access::ReadOnly).await.map_err(of_ceph)?;
            ancestors.push(Named { namespace: parent.namespace, name: parent.image, id: parent.id });
        }
        Ok((Named { namespace, name, id }, ancestors))
    }

    /// Whether a volume has its user, and the store knows its key.
    pub(super) async fn key_exists(&self, volume: VolumeId) -> Result<bool, StoreError> {
        if self.0.records.keys(&[volume]).await?.is_empty() {
            return Ok(false);
        }
        let entity = format!("client.{}", self.user(volume));
        match self.0.cluster.command(json!({"prefix": "auth get", "entity": entity})).await {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == ENOENT => Ok(false),
            Err(error) => Err(of_command(error)),
        }
    }
}

/// The key in what `auth get-or-create` answers.
fn key_of(answer: &Value) -> Option<CephKey> {
    CephKey::parse(answer.get(0)?.get("key")?.as_str()?)
}
