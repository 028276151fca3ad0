//! The configuration file, and noticing that it was replaced.
//!
//! A replacement that cannot be read or parsed is logged once and the last good one stays in force. Deliberately
//! absent: inotify (the directory is mounted read-only from outside, and polling one inode is cheap).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bmi_agent_api::config::NetbootConfig;

/// How often the file's inode and time are looked at: a node waits 5 s between attempts, so it never notices.
pub const POLL: Duration = Duration::from_millis(200);

/// The largest file read: 8 MiB holds over ten thousand instances.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system said no.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than any real one.
    #[error("{0} is larger than {LARGEST} bytes")]
    Large(PathBuf),
    /// Not the JSON of a configuration.
    #[error("parsing {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The configuration in force. Cheap to clone; all clones see a replacement.
#[derive(Debug, Clone)]
pub struct Current(Arc<RwLock<Arc<NetbootConfig>>>);

impl Current {
    /// Starts with a configuration.
    #[must_use]
    pub fn new(config: NetbootConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// The configuration in force now.
    #[must_use]
    pub fn get(&self) -> Arc<NetbootConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, config: NetbootConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// What tells one version of the file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Reads the file. The version is taken first, so that a replacement in between is noticed at the next look.
///
/// # Errors
/// When it is absent, too large or not a configuration.
pub fn load(path: &Path) -> Result<(NetbootConfig, Version), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let (version, length) = look(path).map_err(read)?;
    if length > LARGEST {
        return Err(ConfigError::Large(path.to_owned()));
    }
    let text = fs::read(path).map_err(read)?;
    let config = serde_json::from_slice(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
    Ok((config, version))
}

fn look(path: &Path) -> io::Result<(Version, u64)> {
    let meta = fs::metadata(path)?;
    Ok((Version { inode: meta.ino(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() }, meta.len()))
}

/// Puts each replacement of the file in force, for ever. The process's own address and its part in DHCP are fixed
/// at start: a replacement that changes them is refused, since the agent starts a new process for that.
pub async fn follow(path: PathBuf, mut version: Version, current: Current) {
    loop {
        tokio::time::sleep(POLL).await;
        let Ok((now, _)) = look(&path) else { continue };
        if now == version {
            continue;
        }
        version = now;
        match load(&path) {
            Ok((config, _)) => {
                let old = current.get();
                if config.plan.netboot_address != old.plan.netboot_address || config.dhcp != old.dhcp {
                    tracing::warn!(
                        "the replaced configuration has another address or DHCP mode; kept the old"
                    );
                    continue;
                }
                tracing::info!(config.generation, "configuration replaced");
                current.set(config);
            }
            Err(error) => tracing::warn!(%error, "kept the old configuration"),
        }
    }
}
