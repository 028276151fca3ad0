//! To which database a pool belongs. Whoever starts with another one would find in it nothing but images that it does not
//! know, and set them aside.
//!
//! It is written down as a lock that never ends, on an object of the pool's default namespace: of two that claim a pool in
//! the same moment the OSD lets one have it. Its cookie is the database's id, so that the next client of the same database,
//! who cannot have the lock any more, knows it.

use bmi_rbd::Pool;
use uuid::Uuid;

use super::preflight::PreflightError;

/// The object. Who removes it gives the pool to whoever starts next.
const OBJECT: &str = "bmi_owner";

/// Makes a pool this database's, or finds that it is.
///
/// # Errors
/// When it is another's, or that cannot be found out.
pub(super) async fn claim(root: &Pool, pool: &str, database: Uuid) -> Result<(), PreflightError> {
    let own = database.to_string();
    let fault = |error: bmi_rbd::RbdError| PreflightError::Failed {
        action: error.to_string(),
        reason: error.source.to_string(),
    };
    // Looked at first: that needs no room.
    let mut holder = root.guard_holder(OBJECT).await.map_err(fault)?;
    if holder.is_none() {
        match root.guard_take(OBJECT, &own, None).await {
            Ok(true) => return Ok(()),
            Ok(false) => holder = root.guard_holder(OBJECT).await.map_err(fault)?,
            Err(error) if error.is_full() => {
                tracing::warn!(pool, "the pool is full: it cannot be noted to which database it belongs");
                return Ok(());
            }
            Err(error) => return Err(fault(error)),
        }
    }
    match holder {
        Some(holder) if holder == own => Ok(()),
        holder => Err(PreflightError::Foreign {
            pool: pool.to_owned(),
            owner: holder.unwrap_or_else(|| "another".to_owned()),
            own,
        }),
    }
}
