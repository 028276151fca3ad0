//! Keys of boot volumes: made when the volume is, replaced by a fence, gone with the volume.

use bmi_rbd::{Access, Header, Image, Pool};
use bmi_types::{CephKey, VolumeId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::CephStore;
use super::caps::{self, Named};
use super::fault::{of_ceph, of_command};
use super::names;
use super::records::VolumeKey;
use super::tags::ANCESTORS_MAX;
use crate::store::{Place, StoreError};

/// `ENOENT`.
const ENOENT: i32 = 2;

impl CephStore {
    /// The cephx user of a volume, without `client.`. It begins as the control plane's own, since that is all that the
    /// monitors let it make.
    fn user(&self, volume: VolumeId) -> String {
        format!("{}-{volume}", self.0.settings.user)
    }

    /// Makes a volume's user, or finds it, and notes its key. What it may do is found out once, before anybody has the key.
    pub(super) async fn key_ensure(&self, volume: Place, config: Option<Place>) -> Result<(), StoreError> {
        let known = self.0.records.keys(&[volume.volume]).await?.remove(&volume.volume);
        let (osd, image, header) = match known {
            Some(known) => (known.caps, known.image, known.header),
            None => {
                let (osd, image) = self.caps(volume, config).await?;
                let pool = self.namespace(volume.project).await?;
                let header = notes(&pool, volume.volume, &image).await?;
                (osd, image, header)
            }
        };
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
        let record = VolumeKey { user, key, caps: osd, image, header };
        Ok(self.0.records.key_put(volume.volume, &record).await?)
    }

    /// Looks whether the headers of a volume and of what it was before say what they said before anybody had its key. With
    /// another one it is not opened: that would read, write or remove what is another's, with the rights of the control plane.
    pub(super) async fn header_check(&self, pool: &Pool, volume: VolumeId) -> Result<(), StoreError> {
        let Some(known) = self.0.records.keys(&[volume]).await?.remove(&volume) else { return Ok(()) };
        for note in known.header.lines() {
            let image = note.split(' ').next().unwrap_or_default();
            match pool.header(image).await {
                Ok(header) if agrees(note, image, &header) => {}
                // It is gone already; unless its name is still there, which nobody with its key could remove.
                Err(error) if error.is_absent() && !has_id(pool, image).await? => {}
                Err(error) if !error.is_absent() => return Err(of_ceph(error)),
                _ => {
                    return Err(StoreError::Foreign(format!(
                        "the header of the volume {volume} in {} was changed by who had its key; it is not opened. Look \
                         at it (rados listomapvals rbd_header.{image}), and remove it by hand",
                        pool.namespace(),
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes a volume's user away from the monitors: who has its key cannot connect any more.
    pub(super) async fn key_revoke(&self, volume: VolumeId) -> Result<(), StoreError> {
        let entity = format!("client.{}", self.user(volume));
        match self.0.cluster.command(json!({"prefix": "auth rm", "entity": entity})).await {
            Ok(_) => Ok(()),
            Err(error) if error.errno() == ENOENT => Ok(()),
            Err(error) => Err(of_command(error)),
        }
    }

    /// The OSDs' part of a volume's rights, and the volume's id.
    async fn caps(&self, volume: Place, config: Option<Place>) -> Result<(String, String), StoreError> {
        let (boot, ancestors) = self.named(volume).await?;
        let config = match config {
            Some(config) => Some(self.named(config).await?.0),
            None => None,
        };
        let osd = caps::osd(&self.0.settings.pool, &boot, config.as_ref(), &ancestors);
        Ok((osd, boot.id))
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
        let ancestors = self.ancestors(&image).await?;
        Ok((Named { namespace, name, id }, ancestors))
    }

    /// What an image was cloned from, the youngest first.
    pub(super) async fn ancestors(&self, image: &Image) -> Result<Vec<Named>, StoreError> {
        let mut ancestors: Vec<Named> = Vec::new();
        let mut youngest = image.clone();
        while let Some(parent) = youngest.parent().await.map_err(of_ceph)? {
            if ancestors.len() == ANCESTORS_MAX {
                let namespace = parent.namespace;
                return Err(StoreError::Unusable(format!("an image in {namespace} has too many ancestors")));
            }
            let pool =
                self.0.cluster.pool(&self.0.settings.pool, &parent.namespace).await.map_err(of_ceph)?;
            youngest = pool.image_open(&parent.image, Access::ReadOnly).await.map_err(of_ceph)?;
            ancestors.push(Named { namespace: parent.namespace, name: parent.image, id: parent.id });
        }
        Ok(ancestors)
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

/// Whether an image with an id has a name.
async fn has_id(pool: &Pool, id: &str) -> Result<bool, StoreError> {
    Ok(pool.images().await.map_err(of_ceph)?.iter().any(|entry| entry.id == id))
}

/// The key in what `auth get-or-create` answers.
fn key_of(answer: &Value) -> Option<CephKey> {
    CephKey::parse(answer.get(0)?.get("key")?.as_str()?)
}

/// What the headers of a volume and of what it was before say, a line each: `ID SHA-256 SNAPSHOT…`.
async fn notes(pool: &Pool, volume: VolumeId, image: &str) -> Result<String, StoreError> {
    let mut ids = vec![image.to_owned()];
    for entry in pool.images().await.map_err(of_ceph)? {
        if names::is_former_of(&entry.name, volume) {
            ids.push(entry.id);
        }
    }
    let mut notes = Vec::new();
    for id in ids {
        let header = pool.header(&id).await.map_err(of_ceph)?;
        let snapshots: String = header.snapshots().iter().map(|number| format!(" {number}")).collect();
        notes.push(format!("{id} {}{snapshots}", digest(&header)));
    }
    Ok(notes.join("\n"))
}

/// Whether a header says what is noted of it. Snapshots may be gone: they go with the last clone.
fn agrees(note: &str, image: &str, header: &Header) -> bool {
    let mut words = note.split(' ').skip(1);
    let same = words.next() == Some(digest(header).as_str());
    let known: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    same && note.starts_with(image) && header.snapshots().iter().all(|number| known.contains(number))
}

fn digest(header: &Header) -> String {
    Sha256::digest(header.to_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
