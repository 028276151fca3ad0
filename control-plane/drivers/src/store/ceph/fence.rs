//! Fencing: nobody who had a volume can write to it from here on.
//!
//! Who has it is read from Ceph, never from what an agent says: the owner of the lock and everybody who watches the
//! header. Each goes to the blocklist for a year, noted in the database before. An entry may go when the client cannot
//! come back: its key is gone, and the longest ticket that it may have has run out.
//!
//! Who has a volume's key may write anything there as the address of an owner. So only what is the address of a single client
//! is fenced, and never this one: `10.0.0.1:0/0` would be every client of that host.

use std::net::SocketAddr;
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

/// After this a client whose key is gone has no ticket any more. They are for `auth_mon_ticket_ttl` (72 hours), but what takes
/// them only looks whether it still has what they were sealed with: three of those are kept, each as long as that.
const LONGEST_TICKET: Duration = Duration::from_secs((3 * 72 + 1) * 3600);

/// Clients that are fenced from one volume at once. It has a broker, seldom its successor, and who removes it.
const CLIENTS_MAX: usize = 16;

/// `ENOENT`.
const ENOENT: i32 = 2;

/// Whether an address is that of a single client: those listen on no port, and each has a number of its own.
fn is_client(address: &str) -> bool {
    address.rsplit_once('/').is_some_and(|(host, number)| {
        let silent = host.parse::<SocketAddr>().is_ok_and(|host| host.port() == 0);
        silent && number.parse::<u32>().is_ok_and(|number| number != 0)
    })
}

impl CephStore {
    /// Fences whoever has a volume, and makes a new user for who comes next.
    pub(super) async fn fenced(&self, volume: Place, config: Place) -> Result<(), StoreError> {
        self.alone(volume, config, async |_| Ok(())).await
    }

    /// Puts everybody who has a volume open to write on the blocklist, and takes the lock away.
    pub(super) async fn cut_off(&self, pool: &Pool, volume: Place) -> Result<(), StoreError> {
        let name = names::volume(volume.volume);
        let entries = pool.images().await.map_err(of_ceph)?;
        let Some(entry) = entries.into_iter().find(|entry| entry.name == name) else { return Ok(()) };
        // Read from the header, not by opening the image to write: that would ask its owner for the lock, and add a watcher.
        let owners = match pool.lock_owners(&entry.id).await {
            Err(error) if error.is_absent() => return Ok(()),
            owners => owners.map_err(of_ceph)?,
        };
        self.keep_out(volume, owners.iter().map(|owner| owner.address.clone()).collect()).await?;
        // Who had the lock changes nothing any more: what it changed until then is found before the image is opened.
        self.header_check(pool, volume.volume).await?;
        let image = match pool.image_open(&name, Access::ReadOnly).await {
            Ok(image) => image,
            Err(error) if error.is_absent() => return Ok(()),
            Err(error) => return Err(of_ceph(error)),
        };
        let watchers = image.watchers().await.map_err(of_ceph)?;
        self.keep_out(volume, watchers.into_iter().map(|watcher| watcher.address).collect()).await?;
        for owner in owners {
            match pool.lock_break(&owner).await {
                // It gave it back meanwhile.
                Err(error) if !error.is_absent() => return Err(of_ceph(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts clients that have a volume on the blocklist.
    async fn keep_out(&self, volume: Place, mut addresses: Vec<String>) -> Result<(), StoreError> {
        addresses.sort();
        addresses.dedup();
        let own = self.0.cluster.addresses().map_err(of_ceph)?;
        let (clients, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| is_client(address) && *address != own);
        if !others.is_empty() {
            tracing::warn!(volume = %volume, addresses = ?others, "addresses at a volume that are no broker's; they are left alone");
        }
        if clients.len() > CLIENTS_MAX {
            let what = format!(
                "{} clients have the volume {volume}; it is left alone, look at its lock",
                clients.len()
            );
            return Err(StoreError::Foreign(what));
        }
        let is_anybody = !clients.is_empty();
        for address in clients {
            let fence = Fence { address, volume: volume.volume, at: Timestamp::now() };
            self.0.records.fence_put(&fence).await?;
            let add = json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": fence.address, "expire": YEAR_S});
            self.0.cluster.command(add).await.map_err(of_command)?;
            tracing::info!(volume = %volume, address = fence.address, "a client is fenced from its volume");
        }
        if is_anybody {
            // An OSD may not know of it yet. Whoever has this map and asks an OSD for something has it get
            // the map first.
            self.0.cluster.osd_map_wait().await.map_err(of_ceph)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_client_is_fenced() {
        assert!(is_client("10.0.0.1:0/3205") && is_client("[2001:db8::1]:0/1"));
        for other in ["10.0.0.1:0/0", "10.0.0.1:6800/7", "10.0.0.1:0/-1", "10.0.0.0/8", ":/0", "-", ""] {
            assert!(!is_client(other), "{other}");
        }
    }
}
