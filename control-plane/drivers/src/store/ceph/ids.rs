//! Ids of images. A cap of cephx names objects by how they begin, and `rbd_header.10ab` is also how `rbd_header.10ab7`
//! begins: so no id in a namespace may begin with another.

use bmi_rbd::Pool;

use super::fault::of_ceph;
use super::removal::remove_by_name;
use crate::store::StoreError;

/// How often something is made again because of its id. Ids are random at their end: two tries are seldom needed.
const TRIES: usize = 8;

/// Whether one of two different ids begins with the other.
fn clash(one: &str, other: &str) -> bool {
    one != other && (one.starts_with(other) || other.starts_with(one))
}

/// Whether the id of an image clashes with another's of its namespace, what is in the trash included.
pub(super) async fn is_ambiguous(pool: &Pool, id: &str) -> Result<bool, StoreError> {
    let entries = pool.images().await.map_err(of_ceph)?;
    let trashed = pool.trash().await.map_err(of_ceph)?;
    let mut ids = entries.iter().map(|entry| &entry.id).chain(trashed.iter().map(|entry| &entry.id));
    Ok(ids.any(|other| clash(id, other)))
}

/// What a new image is made of.
pub(super) enum Origin<'a> {
    /// Nothing: so many bytes of zeroes.
    Empty(u64),
    /// A snapshot of an image, of which it is a clone.
    Snapshot(&'a Pool, &'a str, &'a str),
}

impl Origin<'_> {
    async fn make(&self, pool: &Pool, name: &str) -> Result<(), StoreError> {
        let made = match self {
            Self::Empty(size) => pool.image_create(name, *size).await,
            Self::Snapshot(parent, image, snapshot) => pool.image_clone(parent, image, snapshot, name).await,
        };
        made.map_err(of_ceph)
    }
}

/// Makes an image under a name that is free, again and again until its id is its own.
pub(super) async fn make_with_own_id(pool: &Pool, name: &str, origin: &Origin<'_>) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        origin.make(pool, name).await?;
        let entries = pool.images().await.map_err(of_ceph)?;
        let Some(made) = entries.iter().find(|entry| entry.name == name) else { continue };
        if !is_ambiguous(pool, &made.id).await? {
            return Ok(());
        }
        remove_by_name(pool, name).await?;
    }
    Err(StoreError::Unusable(format!("no image with an id of its own can be made in {}", pool.namespace())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_clash_when_one_begins_with_the_other() {
        assert!(clash("10ab", "10ab7") && clash("10ab7", "10ab"));
        assert!(!clash("10ab", "10ab") && !clash("10ab", "10ac"));
    }
}
