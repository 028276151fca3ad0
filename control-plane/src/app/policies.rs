//! The policy that is in force: a snapshot that is replaced when roles or bindings change, on every replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bmi_auth::Policy;
use bmi_auth::policy::PolicyError;
use bmi_db::{ConfiguredBinding, Db, DbError, PolicyAdapter};
use tokio::sync::Mutex;

use super::App;
use crate::error::AppError;

/// How often a replica looks whether the policy changed: half of the second in which a change takes effect.
const LOOK: Duration = Duration::from_millis(400);

/// Why the policy could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database failed.
    #[error("the policy's version cannot be read")]
    Db(#[from] DbError),
    /// The policy failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The policy in force.
pub struct Policies {
    db: Db,
    configured: Vec<ConfiguredBinding>,
    current: ArcSwap<Policy>,
    version: AtomicI64,
    loading: Mutex<()>,
}

impl Policies {
    /// Loads the policy of a database, with what is configured.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn load(db: Db, configured: Vec<ConfiguredBinding>) -> Result<Self, LoadError> {
        let version = version(&db).await?;
        let policy = Policy::load(PolicyAdapter::new(db.clone(), configured.clone())).await?;
        Ok(Self {
            db,
            configured,
            current: ArcSwap::from_pointee(policy),
            version: AtomicI64::new(version),
            loading: Mutex::new(()),
        })
    }

    /// The policy now.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// Loads the policy again when it has changed.
    ///
    /// # Errors
    /// When it cannot be loaded; the one before stays in force.
    pub async fn refresh(&self) -> Result<(), LoadError> {
        let _one = self.loading.lock().await;
        // The version comes first: a change after it is seen the next time.
        let version = version(&self.db).await?;
        if version == self.version.load(Ordering::Relaxed) {
            return Ok(());
        }
        let loaded = Policy::load(PolicyAdapter::new(self.db.clone(), self.configured.clone())).await;
        let policy = match loaded {
            Ok(policy) => policy,
            Err(error) => {
                // What went wrong inside says nothing of a database that went away; asking it does.
                self::version(&self.db).await?;
                return Err(error.into());
            }
        };
        self.current.store(Arc::new(policy));
        self.version.store(version, Ordering::Relaxed);
        Ok(())
    }
}

async fn version(db: &Db) -> Result<i64, DbError> {
    db.system_read(|tx| bmi_db::role::policy_version(tx)).await
}

impl App {
    /// Puts a change of roles or bindings in force here, before the caller is told that it is made. When the database
    /// goes away in between, the change is made and the caller is told 503: it counts as soon as the database is back.
    pub(crate) async fn policy_changed(&self) -> Result<(), AppError> {
        self.policies.refresh().await.map_err(|error| match error {
            LoadError::Db(error) => AppError::Db(error),
            LoadError::Policy(_) => AppError::Defect(bmi_types::chain(&error)),
        })
    }
}

/// Looks for changes of other replicas, for ever.
pub async fn watch(app: Arc<App>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(LOOK).await;
        match app.policies.refresh().await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = bmi_types::chain(&error), "the policy cannot be looked at");
            }
            Err(_) => {}
        }
    }
}
