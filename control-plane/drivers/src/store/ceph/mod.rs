//! The `ceph` store: RBD images, a namespace per project.
//!
//! ```text
//! <project>/image-<id>      an open image; golden when it has the snapshot `golden`, which is what is cloned
//! <project>/upload-<id>     a file that was sent as it is, to be converted
//! <project>/volume-<id>     a boot volume (a clone) or config volume
//! <project>/new-…           one of these until it is whole; what is left of it is made anew
//! <project>/retired-<id>    a golden image that was removed and has clones yet
//! <project>/former-<i>-…     a volume's image (`i` in Ceph) before it went back to a tag
//! <project>/aside-<s>-…     what nobody knew, set aside at that time (seconds since 1970)
//! ```
//!
//! A tag is the snapshot `tag-<id>` of a volume's image, former ones included (`tags.rs`).
//!
//! An image gets its name by a rename, once it is whole. What is removed goes to RBD's trash at once, and is taken out of
//! it in the background, by one process at a time (`guard.rs`). Caps of a cephx user are beginnings of names, so no id of a
//! namespace may begin with another: what got such an id is made again (`ids.rs`).
//!
//! Deliberately absent: reading or writing a boot volume, which only its broker does; any lock between replicas but
//! Ceph's own.
//!
//! Invariant: nothing that is not named like the above is touched, and a namespace with such things is not used.

pub mod caps;
mod changes;
mod content;
mod fault;
mod fence;
mod guard;
mod ids;
mod images;
mod import;
mod keys;
mod names;
mod owner;
mod preflight;
mod preflight_space;
mod records;
mod removal;
mod store;
mod tags;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bmi_rbd::{Cluster, Identity, Pool, Settings, Timeouts};
use bmi_types::ProjectId;

use super::{Place, StoreError};
use crate::image::Converter;
use fault::of_ceph;

pub use preflight::PreflightError;
pub use records::{CephRecords, Fence, RecordError, VolumeKey};

/// How the store is reached.
#[derive(Debug, Clone)]
pub struct CephSettings {
    /// Ceph's configuration file.
    pub conf: PathBuf,
    /// The control plane's user, without `client.`.
    pub user: String,
    /// Its keyring; the configuration file's when absent.
    pub keyring: Option<PathBuf>,
    /// The pool.
    pub pool: String,
    /// The namespace of the pool whose images can be imported; none when absent. It is no project's.
    pub import_namespace: Option<String>,
    /// Where the monitors are for brokers, when it is not where they are for the control plane.
    pub broker_mon_host: Option<String>,
    /// A directory on this host with room for the largest image that is converted.
    pub staging: PathBuf,
}

/// A store in Ceph. Clones are the same.
#[derive(Clone)]
pub struct CephStore(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    /// The pool's default namespace: there the namespaces are kept.
    root: Pool,
    settings: CephSettings,
    converter: Converter,
    records: Arc<dyn CephRecords>,
    /// Had while a trash is emptied, also by a task that nobody waits for any more.
    purging: Arc<tokio::sync::Mutex<()>>,
    /// Namespaces that were found to be ours.
    known: Mutex<BTreeSet<ProjectId>>,
}

impl CephStore {
    /// Connects, and looks whether everything is allowed and set that the store needs.
    ///
    /// # Errors
    /// When something is not: which right of the user or which setting of the pool is missing, and the command that
    /// mends it; and when the pool is another database's.
    pub async fn open(
        settings: CephSettings,
        converter: Converter,
        records: Arc<dyn CephRecords>,
    ) -> Result<Self, PreflightError> {
        let identity = settings.keyring.clone().map(Identity::Keyring);
        let connecting = Settings {
            conf: Some(settings.conf.clone()),
            mon_host: None,
            user: settings.user.clone(),
            identity,
            timeouts: Timeouts::MANAGEMENT,
            options: Vec::new(),
        };
        let cluster = Cluster::connect(connecting).await.map_err(PreflightError::connect)?;
        let root = preflight::check(&cluster, &settings.pool, settings.import_namespace.as_deref()).await?;
        owner::claim(&root, &settings.pool, records.owner().await?).await?;
        preflight_space::sweep(&cluster, &root, &settings.pool).await;
        std::fs::create_dir_all(&settings.staging)
            .map_err(|source| PreflightError::Staging { path: settings.staging.clone(), source })?;
        let (purging, known) = (Arc::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { cluster, root, settings, converter, records, purging, known })))
    }

    /// A project's namespace, as it is. A pool that is full is told, and not waited for.
    async fn namespace(&self, project: ProjectId) -> Result<Pool, StoreError> {
        let namespace = names::namespace(project);
        self.0.cluster.pool(&self.0.settings.pool, &namespace).await.map_err(of_ceph)
    }

    /// A project's namespace to make something in: it is made when it is not there, with all that it needs to
    /// be emptied again, and refused when it is not ours.
    async fn namespace_ensure(&self, project: ProjectId) -> Result<Pool, StoreError> {
        let pool = self.namespace(project).await?;
        if self.0.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&project) {
            return Ok(pool);
        }
        match self.0.root.namespace_create(pool.namespace()).await {
            Ok(()) => {}
            Err(error) if error.exists() => {}
            Err(error) => return Err(of_ceph(error)),
        }
        let entries = pool.images().await.map_err(of_ceph)?;
        let strangers: Vec<String> =
            entries.into_iter().map(|entry| entry.name).filter(|name| names::parse(name).is_none()).collect();
        if let Some(first) = strangers.first() {
            return Err(StoreError::Foreign(format!(
                "the namespace {}/{} has {} images that are not BMI's, such as `{first}`; move them elsewhere",
                self.0.settings.pool,
                pool.namespace(),
                strangers.len(),
            )));
        }
        match removal::trash_ensure(&pool).await {
            // What is wanted here says so itself, unless it is there already.
            Err(error) if error.is_full() => return Ok(pool),
            made => made.map_err(of_ceph)?,
        }
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).insert(project);
        Ok(pool)
    }

    /// The namespace and name of a volume.
    fn volume_name(volume: Place) -> (String, String) {
        (names::namespace(volume.project), names::volume(volume.volume))
    }
}
