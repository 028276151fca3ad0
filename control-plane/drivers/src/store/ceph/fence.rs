//! Fencing: nobody who had a volume can write to it from here on.
//!
//! Who has it is read from Ceph, never from what an agent says: the owner of the lock and everybody who watches the
//! header. Each goes to the blocklist for a year, noted in the database before. An entry may go when the client cannot
//! come back: its key is gone, and the longest ticket that it may have has run out.

use std::time::Duration;

use bmi_rbd::{Access, Pool};
use bmi_types::Timestamp;
use serde_json::json;

use super::fault::{of_ceph, of_command};
use super::records::Fence;
use super::{CephStore, names};
use crate::store::{Place, StoreError};

/// How long a client is kept out, in seconds. It is let go before, once it cannot come back.
const YEAR_S: f64 = 365.0 * 24.0 * 3600.0;

/// After this a client whose key is gone has no ticket any more: `auth_mon_ticket_ttl` (72 hours) and an hour.
const LONGEST_TICKET: Duration = Duration::from_secs(73 * 3600);

/// `ENOENT`.
const ENOENT: i32 = 2;

impl CephStore {
    /// Fences whoever has a volume, and makes a new user for who comes next.
    pub(super) async fn fenced(&self, volume: Place, config: Place) -> Result<(), StoreError> {
        self.alone(volume, config, async |_| Ok(())).await
    }

    /// Puts everybody who has a volume open to write on the blocklist, and takes the lock away.
    pub(super) async fn cut_off(&self, pool: &Pool, volume: Place) -> Result<(), StoreError> {
        let name = names::volume(volume.volume);
        let image = match pool.image_open(&name, Access::ReadOnly).await {
            Ok(image) => image,
            Err(error) if error.is_absent() => return Ok(()),
            Err(error) => return Err(of_ceph(error)),
        };
        // Read from the header, not by opening the image to write: that would ask its owner for the lock, and add a watcher.
        let owners = pool.lock_owners(&image.id().await.map_err(of_ceph)?).await.map_err(of_ceph)?;
        let watchers = image.watchers().await.map_err(of_ceph)?;
        let mut addresses: Vec<String> = owners.iter().map(|owner| owner.address.clone()).collect();
        addresses.extend(watchers.into_iter().map(|watcher| watcher.address));
        addresses.sort();
        addresses.dedup();
        for address in addresses {
            let fence = Fence { address, volume: volume.volume, at: Timestamp::now() };
            self.0.records.fence_put(&fence).await?;
            let add = json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": fence.address, "expire": YEAR_S});
            self.0.cluster.command(add).await.map_err(of_command)?;
            tracing::info!(volume = %volume, address = fence.address, "a client is fenced from its volume");
        }
        for owner in owners {
            match pool.lock_break(&owner).await {
                // It gave it back meanwhile.
                Err(error) if !error.is_absent() => return Err(of_ceph(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes clients off the blocklist that cannot come back.
    pub(super) async fn fences_let_go(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        for fence in self.0.records.fences().await? {
            if now.since(fence.at) < LONGEST_TICKET {
                continue;
            }
            let remove = json!({"prefix": "osd blocklist", "blocklistop": "rm", "addr": fence.address});
            match self.0.cluster.command(remove).await {
                Err(error) if error.errno() != ENOENT => return Err(of_command(error)),
                _ => self.0.records.fence_remove(&fence.address).await?,
            }
        }
        Ok(())
    }
}
