//! The master key and what it seals: which key opens the database, and sealing everything under a new one.
//!
//! A new key is made beside the old one (`master.key.next`), everything is sealed under it in one transaction, and then
//! it takes the old one's name. Whoever is killed in between leaves a database that is sealed wholly under the one or
//! wholly under the other, and [`settle`] sees which.
//!
//! Invariant: no server works with a key that does not open what its database holds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bmi_auth::{MasterKey, SealError, SecretFileError};
use bmi_db::idempotency::Scope;
use bmi_db::sealed::{self, Column, Value};
use bmi_db::{Db, DbError, Held, SystemTx};
use bmi_types::{AuthorityId, InstanceId, VolumeId};

use crate::app::App;
use crate::app::instance::{boot_key_purpose, user_data_purpose};

/// How often a replica looks whether it still holds the database.
const LOOK: Duration = Duration::from_secs(5);

/// Why the secrets of a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The database failed.
    #[error("the database failed")]
    Db(#[from] DbError),
    /// A key file failed.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A value could not be sealed or opened.
    #[error("a sealed value could not be sealed again")]
    Seal(#[from] SealError),
    /// The key is not the one that the database was sealed under.
    #[error("the master key in {0} does not open the secrets of this database; it is another deployment's")]
    WrongKey(PathBuf),
    /// The key is gone.
    #[error(
        "the database holds sealed secrets, and their master key is not in {0}; restore it from a backup"
    )]
    NoKey(PathBuf),
    /// The files could not be put in place.
    #[error("cannot put {path} in place")]
    Place {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A task failed.
    #[error("a task failed: {0}")]
    Task(String),
}

/// What a value was sealed for.
fn purpose(value: &Value) -> String {
    match value.column {
        Column::BootKey => boot_key_purpose(InstanceId::from(value.id)),
        Column::UserData => user_data_purpose(InstanceId::from(value.id)),
        Column::SignIn => format!("sign-in:{}", value.id),
        Column::CephKey => sealed::ceph_key_purpose(VolumeId::from(value.id)),
        Column::AuthorityKey => sealed::authority_key_purpose(AuthorityId::from(value.id)),
        Column::Answer => value.request.as_ref().map(answer_purpose).unwrap_or_default(),
    }
}

/// What the kept answer of a request is sealed for.
#[must_use]
pub fn answer_purpose(request: &Scope) -> String {
    let Scope { caller, method, path, key } = request;
    // As JSON, two requests never read the same.
    format!("idempotency:{}", serde_json::json!([caller, method, path, key]))
}

fn opens(key: &MasterKey, value: &Value) -> bool {
    key.open(&purpose(value), &value.sealed).is_ok()
}

/// One value of each column, if there is one.
fn samples(tx: &mut SystemTx<'_>) -> Result<Vec<Value>, DbError> {
    let mut found = Vec::new();
    for column in Column::ALL {
        found.extend(sealed::list(tx, column, 1)?);
    }
    Ok(found)
}

/// Where the next key is until everything is sealed under it.
#[must_use]
pub fn next_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// Reads the master key of a database, finishing or undoing what a killed `rekey` left; makes one where nothing is
/// sealed yet.
///
/// # Errors
/// When there is no key that opens what the database holds.
pub async fn master_key(db: &Db, path: &Path) -> Result<MasterKey, SealedError> {
    let samples = db.system_read(samples).await?;
    settle(&samples, path)?;
    if !path.exists() && !samples.is_empty() {
        return Err(SealedError::NoKey(path.to_owned()));
    }
    let key = MasterKey::load_or_create(path)?;
    match samples.iter().find(|value| !opens(&key, value)) {
        Some(_) => Err(SealedError::WrongKey(path.to_owned())),
        None => Ok(key),
    }
}

/// Looks whether a key opens everything that a database holds.
///
/// # Errors
/// When there is no key, or it does not.
pub async fn opens_all(db: &Db, path: &Path) -> Result<(), SealedError> {
    let all = db.system_read(|tx| {
        let mut found = Vec::new();
        for column in Column::ALL {
            found.extend(sealed::list(tx, column, i64::MAX)?);
        }
        Ok::<_, DbError>(found)
    });
    let all = all.await?;
    if !path.exists() {
        return if all.is_empty() { Ok(()) } else { Err(SealedError::NoKey(path.to_owned())) };
    }
    let key = MasterKey::load_or_create(path)?;
    if all.iter().all(|value| opens(&key, value)) {
        Ok(())
    } else {
        Err(SealedError::WrongKey(path.to_owned()))
    }
}

/// A next key that everything is sealed under takes its place; one that nothing is sealed under is removed.
fn settle(samples: &[Value], path: &Path) -> Result<(), SealedError> {
    let next = next_path(path);
    if !next.exists() {
        return Ok(());
    }
    let key = MasterKey::load_or_create(&next)?;
    if samples.iter().any(|value| opens(&key, value)) {
        tracing::warn!(path = %path.display(), "a rekey was interrupted after its work was done; the new key is put in place");
        return in_place(&next, path);
    }
    tracing::warn!(path = %next.display(), "a rekey was interrupted before it changed anything; its key is removed");
    std::fs::remove_file(&next).map_err(|source| SealedError::Place { path: next, source })
}

fn in_place(next: &Path, path: &Path) -> Result<(), SealedError> {
    let place = |source| SealedError::Place { path: path.to_owned(), source };
    std::fs::rename(next, path).map_err(place)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(place)
}

/// Seals everything under a new key; answers how many values that were.
///
/// # Errors
/// When a value cannot be opened; then nothing has changed. The database must be held meanwhile.
pub async fn rekey(db: &Db, path: &Path) -> Result<usize, SealedError> {
    let old = master_key(db, path).await?;
    let next = next_path(path);
    let new = MasterKey::load_or_create(&next)?;
    let at = path.to_owned();
    let count = db
        .system_write(move |tx| {
            let mut count = 0;
            for column in Column::ALL {
                for mut value in sealed::list(tx, column, i64::MAX)? {
                    let purpose = purpose(&value);
                    let secret =
                        old.open(&purpose, &value.sealed).map_err(|_| SealedError::WrongKey(at.clone()))?;
                    value.sealed = new.seal(&purpose, &secret)?;
                    sealed::update(tx, &value)?;
                    count += 1;
                }
            }
            Ok::<_, SealedError>(count)
        })
        .await?;
    in_place(&next, path)?;
    Ok(count)
}

/// Looks whether this replica still holds its database, and ends when another has it, or sealed it under another key, or
/// when a newer release migrated it to what this one cannot work with.
pub async fn keep(mut held: Held, app: &Arc<App>) -> SealedError {
    loop {
        tokio::time::sleep(LOOK).await;
        let renewed = tokio::task::spawn_blocking(move || {
            let renewed = held.renew();
            (held, renewed)
        });
        let renewed = match renewed.await {
            Ok((same, renewed)) => {
                held = same;
                renewed
            }
            Err(error) => return SealedError::Task(error.to_string()),
        };
        match renewed {
            Ok(false) => {}
            Ok(true) => match app.db.system_read(samples).await {
                Ok(samples) if samples.iter().all(|value| opens(&app.master_key, value)) => {
                    tracing::info!("the database is held again after its connection broke");
                }
                Ok(_) => return SealedError::WrongKey("memory".into()),
                Err(error) => tracing::warn!(%error, "the database could not be read"),
            },
            Err(error @ DbError::InUse(_)) => return error.into(),
            Err(error) => tracing::warn!(%error, "the database is not held"),
        }
        if let Err(error @ (DbError::TooNew { .. } | DbError::Moved)) = app.db.suits().await {
            return error.into();
        }
    }
}
