//! A volume that is an image of Ceph.
//!
//! Without librbd's cache: what was answered is in Ceph, so that a process that dies takes nothing along.
//!
//! Invariants:
//! - The exclusive lock of an image that may be written is taken once and kept. librbd then refuses to give it
//!   away, and to write when it is lost (EROFS), instead of taking it back.
//! - Nothing is served before a second connection with the same key, made while the lock is had. Who fences takes
//!   the key away and then looks who has the lock: who comes before the lock is noticed here, and who comes later
//!   finds its owner.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use bmi_agent_api::config::{BrokerConfig, BrokerExport};
use bmi_rbd::{Access, Cluster, Identity, Image, Pool, RbdError, Settings, Timeouts};
use bmi_types::chain;
use bytes::Bytes;

use super::{Volume, VolumeError};

/// `EBLOCKLISTED`.
const ESHUTDOWN: i32 = 108;

/// How often it is tried to get a lock that somebody else has. One whose owner is dead is given up by Ceph 30 s after
/// that (`osd_client_watch_timeout`).
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Former clients that are remembered. When more processes ended before they had the lock, some in the middle are
/// forgotten: the first is most likely to have it, and a lock that nobody breaks is given up by Ceph.
const CLIENTS_MAX: usize = 64;

/// How long it may take to give locks back when this process is not wanted. Whoever fenced it may fence it
/// again meanwhile, and then what it closes waits for what never comes.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// The most that is read of the file of former clients, in bytes: a line has less than 64.
const CLIENTS_BYTES_MAX: u64 = 64 * 1024;

/// An image that is open.
pub struct RbdVolume {
    image: Image,
    size: u64,
}

impl From<RbdError> for VolumeError {
    fn from(error: RbdError) -> Self {
        if error.is_fenced() {
            Self::Fenced(error.into())
        } else if error.is_full() {
            Self::NoSpace(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}

/// Connects and opens every export, in that order; takes the locks, and looks whether the key is good once it
/// has them.
///
/// # Errors
/// When the cluster, the user or an image is not what the configuration says; [`VolumeError::Fenced`] when
/// somebody fenced this process before it had the locks.
pub async fn open(config: &BrokerConfig, clients: Option<&Path>) -> Result<Vec<RbdVolume>, VolumeError> {
    let cluster = Cluster::connect(settings(config)).await?;
    let mut former = Clients::open(clients).map_err(|error| VolumeError::Failed(error.into()))?;
    former.add(&cluster.addresses()?).map_err(|error| VolumeError::Failed(error.into()))?;
    let mut volumes = Vec::new();
    for export in &config.exports {
        volumes.push(volume_open(&cluster, config, export, &former).await?);
    }
    former.only_last().map_err(|error| VolumeError::Failed(error.into()))?;
    if let Err(error) = wanted(config).await {
        for volume in volumes {
            let _ = tokio::time::timeout(GIVE_BACK, volume.image.close()).await;
        }
        return Err(error);
    }
    Ok(volumes)
}

/// Whether the key is still good.
async fn wanted(config: &BrokerConfig) -> Result<(), VolumeError> {
    match Cluster::connect(settings(config)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_refused() => Err(VolumeError::Fenced(error.into())),
        Err(error) => Err(error.into()),
    }
}

fn settings(config: &BrokerConfig) -> Settings {
    let options = [
        // What was answered is in Ceph.
        ("rbd_cache", "false"),
        // The key has no right to blocklist, and whoever breaks a lock has made sure that its owner is gone.
        ("rbd_blocklist_on_break_lock", "false"),
    ];
    Settings {
        conf: None,
        mon_host: Some(config.mon_host.clone()),
        user: config.user.clone(),
        identity: Some(Identity::Key(config.key.clone())),
        timeouts: Timeouts::DISK,
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

async fn volume_open(
    cluster: &Cluster,
    config: &BrokerConfig,
    export: &BrokerExport,
    former: &Clients,
) -> Result<RbdVolume, VolumeError> {
    let access = if export.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let pool = cluster.pool(&config.pool, &export.namespace).await?;
    let image = pool.image_open(&export.image, access).await?;
    if access == Access::ReadWrite {
        lock(&pool, &image, &export.image, former).await?;
    }
    let size = image.size().await?;
    tracing::info!(export = export.name, image = export.image, size_bytes = size, "open");
    Ok(RbdVolume { image, size })
}

/// Takes the exclusive lock. One of a former client of this host is broken; anybody else is waited for.
async fn lock(pool: &Pool, image: &Image, name: &str, former: &Clients) -> Result<(), VolumeError> {
    let id = image.id().await?;
    let mut told = false;
    loop {
        for owner in pool.lock_owners(&id).await? {
            if former.has(&owner.address) {
                tracing::info!(image = name, owner = owner.address, "the lock of a former process is broken");
                pool.lock_break(&owner).await?;
            }
        }
        let error = match image.lock().await {
            Ok(()) => return Ok(()),
            Err(error) if error.errno() == ESHUTDOWN => return Err(error.into()),
            Err(error) => error,
        };
        if !told {
            told = true;
            tracing::warn!(image = name, error = chain(&error), "somebody else has the lock; waiting for it");
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

impl Volume for RbdVolume {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_cached(&self) -> bool {
        false
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, VolumeError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(Bytes::from(self.image.read(offset, length).await?))
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), VolumeError> {
        Ok(self.image.write(offset, data).await?)
    }

    async fn flush(&self) -> Result<(), VolumeError> {
        Ok(self.image.flush().await?)
    }

    async fn discard(&self, offset: u64, length: u64) -> Result<(), VolumeError> {
        Ok(self.image.discard(offset, length).await?)
    }

    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), VolumeError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(self.image.write_zeroes(offset, length).await?)
    }

    async fn close(self) -> Result<(), VolumeError> {
        Ok(self.image.close().await?)
    }
}

/// The addresses of the Ceph clients that processes before this one were, on this host; the last is this one's.
struct Clients {
    file: Option<File>,
    /// Bytes that were in it.
    length: usize,
    known: Vec<String>,
}

impl Clients {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, length: 0, known: Vec::new() }) };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut text = String::new();
        (&file).take(CLIENTS_BYTES_MAX).read_to_string(&mut text)?;
        let known = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Self { file: Some(file), length: text.len(), known })
    }

    fn has(&self, address: &str) -> bool {
        self.known.split_last().is_some_and(|(_, former)| former.iter().any(|known| known == address))
    }

    /// Before it can have a lock.
    fn add(&mut self, address: &str) -> io::Result<()> {
        self.known.push(address.to_owned());
        while self.known.len() > CLIENTS_MAX {
            self.known.remove(CLIENTS_MAX / 2);
        }
        self.write()
    }

    /// Nobody before it has a lock any more.
    fn only_last(&mut self) -> io::Result<()> {
        self.known.drain(..self.known.len().saturating_sub(1));
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text: String = self.known.iter().map(|address| format!("{address}\n")).collect();
        // It may not make the file shorter: what is left over becomes empty lines.
        text.extend(std::iter::repeat_n('\n', self.length.saturating_sub(text.len())));
        self.length = text.len();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_clients_are_known_until_their_locks_are_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = || std::fs::read_to_string(file.path()).unwrap().trim_end().to_owned();
        let mut first = Clients::open(Some(file.path())).unwrap();
        first.add("a").unwrap();
        assert!(!first.has("a"), "not itself");
        // It died before it had the lock.
        let mut second = Clients::open(Some(file.path())).unwrap();
        second.add("b").unwrap();
        assert!(second.has("a") && !second.has("b") && !second.has("c"));
        assert_eq!(lines(), "a\nb");
        second.only_last().unwrap();
        assert_eq!(lines(), "b");
        let mut third = Clients::open(Some(file.path())).unwrap();
        assert!(!third.has("a"));
        (0..1000).for_each(|number| third.add(&number.to_string()).unwrap());
        assert!(third.has("b") && third.has("998") && third.known.len() == CLIENTS_MAX);
    }
}
