//! The `ceph` store itself, with the rights of a control plane and without one.

use std::path::PathBuf;
use std::sync::Arc;

use bmi_drivers::image::Converter;
use bmi_drivers::store::ceph::{CephSettings, CephStore, PreflightError};

use crate::ceph::Ceph;
use crate::records::MemoryRecords;

/// The store with what is around it.
#[allow(missing_debug_implementations, reason = "a connection has nothing to show")]
pub struct OpenStore {
    /// It.
    pub store: CephStore,
    /// What it noted.
    pub records: Arc<MemoryRecords>,
    _staging: tempfile::TempDir,
}

impl OpenStore {
    /// Opens it as a control plane does.
    pub async fn open(ceph: &Ceph) -> Self {
        Self::open_with(ceph, |_| ()).await
    }

    /// The same with other settings.
    pub async fn open_with(ceph: &Ceph, change: impl FnOnce(&mut CephSettings)) -> Self {
        let staging = tempfile::tempdir().unwrap();
        let mut settings = ceph.store_settings(staging.path().to_owned());
        change(&mut settings);
        let records = Arc::new(MemoryRecords::default());
        let opened: Result<CephStore, PreflightError> =
            CephStore::open(settings, Converter::nothing(), Arc::clone(&records) as _).await;
        Self { store: opened.unwrap(), records, _staging: staging }
    }
}

/// The store for a test that waits in one thread.
#[allow(missing_debug_implementations, reason = "a connection has nothing to show")]
pub struct WaitingStore {
    opened: OpenStore,
    runtime: tokio::runtime::Runtime,
}

impl WaitingStore {
    /// Opens it as a control plane does.
    #[must_use]
    pub fn open(ceph: &Ceph) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { opened: runtime.block_on(OpenStore::open(ceph)), runtime }
    }

    /// Asks it for something, and waits for it.
    pub fn ask<T>(&self, work: impl AsyncFnOnce(&CephStore) -> T) -> T {
        self.runtime.block_on(work(&self.opened.store))
    }
}

impl Ceph {
    /// How a control plane reaches this cluster, and with which rights.
    #[must_use]
    pub fn store_settings(&self, staging: PathBuf) -> CephSettings {
        CephSettings {
            conf: self.conf(),
            user: "bmi".to_owned(),
            keyring: Some(self.control_plane_keyring("bmi")),
            pool: self.pool().to_owned(),
            import_namespace: None,
            broker_mon_host: None,
            staging,
        }
    }
}
