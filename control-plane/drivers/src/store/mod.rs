//! Data stores: where images and volumes are kept.
//!
//! Invariants every implementation keeps:
//! - A sealed image never changes, and only a sealed image is cloned.
//! - A name is either whole or absent: what was cut off leaves nothing that looks finished.
//! - All verbs are idempotent; names are derived from ids.

#[cfg(feature = "ceph")]
pub mod ceph;
mod import_source;
mod local;
mod mount;
mod simulated;
mod sparse;
mod stored_source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{ByteSize, CephKey, ImageFormat, ProjectId, TagId, VolumeId};
use bytes::Bytes;

use crate::image::{ConverterError, Inspected, Refusal};

pub use import_source::{ImportDir, ImportSourceError};
pub use local::LocalStore;
pub use mount::prepare as prepare_local_directory;
pub use simulated::SimulatedStore;
pub use stored_source::{SourceError, StoredSource, StoredSourceNameError};

/// The place of an image or a volume: its project's namespace, and its id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The namespace.
    pub project: ProjectId,
    /// The id.
    pub volume: VolumeId,
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.project, self.volume)
    }
}

/// What kind of thing is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// An open or sealed image.
    Image,
    /// A boot volume or config volume.
    Volume,
}

/// One thing in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// What kind.
    pub kind: ItemKind,
    /// Where.
    pub place: Place,
}

/// What a sealed image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Size of the disk.
    pub size: ByteSize,
    /// SHA-256 of the whole disk, in hexadecimal.
    pub sha256: String,
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageContent {
    /// Nothing.
    Absent,
    /// An image that can be written to.
    Open {
        /// Size of the disk.
        size: ByteSize,
    },
    /// A golden image.
    Sealed {
        /// Size of the disk.
        size: ByteSize,
    },
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes it can hold.
    pub capacity: ByteSize,
    /// Bytes in use; blocks that clones share are counted once.
    pub used: ByteSize,
}

/// Where the blocks of a volume are, for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A raw file on this host.
    File(PathBuf),
    /// An image in Ceph, for a broker with the [`Access`] of the boot volume.
    Rbd {
        /// The namespace.
        namespace: String,
        /// The image's name.
        image: String,
    },
}

/// What a broker proves itself with: it reaches one boot volume, its config volume, and what the boot volume was cloned
/// from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where Ceph's monitors are, as `mon_host` has it.
    pub mon_host: String,
    /// The pool.
    pub pool: String,
    /// The cephx user, without `client.`.
    pub user: String,
    /// Its key.
    pub key: CephKey,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no space left.
    #[error("the store is full: cannot {action}")]
    Full {
        /// What was being done, to what.
        action: String,
    },
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something is not there.
    #[error("{0} does not exist in the store")]
    Absent(Place),
    /// There is no such tag.
    #[error("{place} has no tag {tag}")]
    NoTag {
        /// Of which volume.
        place: Place,
        /// Which.
        tag: TagId,
    },
    /// A sealed image would have been changed, or an open one cloned.
    #[error("{place} is {state}")]
    WrongState {
        /// Which.
        place: Place,
        /// `sealed` or `not sealed`.
        state: &'static str,
    },
    /// Bytes outside the disk.
    #[error("{length} bytes at {offset} reach beyond the {size} bytes of {place}")]
    OutOfRange {
        /// Which.
        place: Place,
        /// Where the bytes begin.
        offset: u64,
        /// How many.
        length: u64,
        /// Size of the disk.
        size: u64,
    },
    /// An image file is not what it was declared as, or wants what is not given.
    #[error("the image is refused")]
    Refused(#[from] Refusal),
    /// An image of the store is not imported.
    #[error("the image is not imported")]
    Source(#[from] SourceError),
    /// An image file was not converted.
    #[error("the image was not converted")]
    Conversion(#[from] ConverterError),
    /// The store's user has no right to it.
    #[error("the store's user may not {action}")]
    Denied {
        /// What was being done, to what.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store does not answer. What was asked may be done all the same.
    #[error("the store does not answer: cannot {action}")]
    Unreachable {
        /// What was being done, to what.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something is there that is not BMI's, or not what it should be.
    #[error("{0}")]
    Foreign(String),
    /// What the store keeps in the database.
    #[error("the store's records cannot be read or written")]
    Records(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be used as it is configured.
    #[error("{0}")]
    Unusable(String),
}

impl StoreError {
    /// An I/O failure, with "no space left" told apart.
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        let action = action.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { action },
            _ => Self::Io { action, source },
        }
    }
}

/// Whether bytes lie within a disk.
fn within(place: Place, size: u64, offset: u64, length: u64) -> Result<(), StoreError> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(StoreError::OutOfRange { place, offset, length, size }),
    }
}

/// The bytes of a file that is to be imported.
fn source_size(source: &std::fs::File) -> Result<u64, StoreError> {
    let metadata = source.metadata();
    Ok(metadata.map_err(|error| StoreError::io("look at the file to import", error))?.len())
}

/// Hears how far a long copy is: bytes done, bytes in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// A data store.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// Makes an empty open image; one that is there already, of the same size, is kept as it is.
    async fn image_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError>;

    /// Writes bytes into an open image and makes them durable.
    async fn image_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError>;

    /// Replaces an open or absent image by a copy of a raw file.
    async fn image_import(
        &self,
        place: Place,
        source: std::fs::File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// Looks at an image that is in the store already, where the operator put it for others to import, and refuses what is not
    /// to be copied.
    async fn source_inspect(&self, source: &StoredSource) -> Result<Inspected, StoreError>;

    /// Replaces an open or absent image by a copy of such an image, after looking at that again. It is only read. Whoever
    /// loses interest stops the copy; one of a snapshot goes on where it was when it is asked for again.
    async fn image_import_stored(
        &self,
        place: Place,
        source: &StoredSource,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// Makes room for an image file that is sent as it is, to be converted; one that is there already, of the same
    /// size, is kept.
    async fn upload_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError>;

    /// Writes bytes into an uploaded file and makes them durable.
    async fn upload_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError>;

    /// Replaces an uploaded file by a copy of a file, so that nobody changes it from here on.
    async fn upload_copy(
        &self,
        place: Place,
        source: std::fs::File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// The size of an uploaded file; nothing when there is none.
    async fn upload_observe(&self, place: Place) -> Result<Option<ByteSize>, StoreError>;

    /// Looks at what was uploaded, of a declared format, and refuses what is not to be sealed or converted.
    async fn upload_inspect(&self, place: Place, format: ImageFormat) -> Result<Inspected, StoreError>;

    /// Removes an uploaded file.
    async fn upload_remove(&self, place: Place) -> Result<(), StoreError>;

    /// Replaces an open or absent image by the disk that an uploaded file holds, after looking at the file again.
    async fn image_convert(
        &self,
        place: Place,
        format: ImageFormat,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// Whether [`DataStore::image_convert`] can work here.
    ///
    /// # Errors
    /// Why not, and what would be right.
    fn conversion_ready(&self) -> Result<(), ConverterError>;

    /// Makes an image immutable and durable. A sealed one is only measured again.
    async fn image_seal(&self, place: Place, progress: Progress<'_>) -> Result<Sealed, StoreError>;

    /// Gives an open image another size. What a smaller one leaves out is gone; what a larger one has more is zero.
    async fn image_resize(&self, place: Place, size: ByteSize) -> Result<(), StoreError>;

    /// Reads a part of a golden image, as it is exported: at most so many bytes, fewer at its end and none behind it.
    async fn image_read(&self, place: Place, offset: u64, length: u32) -> Result<Bytes, StoreError>;

    /// Copies what an image shares with the one that it was cloned from, so that it needs it no more. Whoever loses interest
    /// stops it; it goes on where it was when it is asked for again.
    async fn image_flatten(&self, place: Place, progress: Progress<'_>) -> Result<(), StoreError>;

    /// Looks what is at a place.
    async fn image_observe(&self, place: Place) -> Result<ImageContent, StoreError>;

    /// Removes an image, whatever its state, and the file it was uploaded as.
    async fn image_remove(&self, place: Place) -> Result<(), StoreError>;

    /// Makes a volume that is a copy-on-write clone of a golden image.
    async fn volume_clone(&self, golden: Place, volume: Place) -> Result<(), StoreError>;

    /// Makes a volume with a content of its own, replacing one that is there.
    async fn volume_put(&self, volume: Place, content: Bytes) -> Result<(), StoreError>;

    /// Whether a volume is there, whole.
    async fn volume_exists(&self, volume: Place) -> Result<bool, StoreError>;

    /// Removes a volume.
    async fn volume_remove(&self, volume: Place) -> Result<(), StoreError>;

    /// Everything there is, also what was only begun, whoever knows of it.
    async fn items(&self) -> Result<Vec<Item>, StoreError>;

    /// Takes away what nobody knows of. It is absent from now on; a person can get it back until it expires.
    async fn set_aside(&self, item: Item) -> Result<(), StoreError>;

    /// Removes what was set aside longer ago than `keep`, and says how much.
    async fn aside_expire(&self, keep: Duration) -> Result<u64, StoreError>;

    /// How many bytes a thing really takes; nothing for what is not there. An image takes all its blocks, a volume
    /// those that it shares with no other: a fresh clone takes next to nothing.
    async fn item_used(&self, item: Item) -> Result<ByteSize, StoreError>;

    /// How full it is.
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Gives back the room of what was removed, as far as that can be done now, and says how many things that were. What
    /// is removed is not there any more before this; it is called again and again.
    async fn reclaim(&self) -> Result<u64, StoreError>;

    /// Makes what a boot volume's server needs to reach it and its config volume. Idempotent; [`DataStore::volume_remove`]
    /// takes it away again.
    async fn access_ensure(&self, boot: Place, config: Place) -> Result<(), StoreError>;

    /// Whether [`DataStore::access_ensure`] has done its work.
    async fn access_exists(&self, boot: Place) -> Result<bool, StoreError>;

    /// What servers of these boot volumes prove themselves with; none where none is needed.
    async fn access(&self, boots: &[Place]) -> Result<BTreeMap<VolumeId, Access>, StoreError>;

    /// Makes sure that nobody who had a boot volume can write to it from now on, wherever that is and whatever it does; and
    /// that a new server can, with what [`DataStore::access`] gives then.
    async fn fence(&self, boot: Place, config: Place) -> Result<(), StoreError>;

    /// Keeps what a boot volume holds as a tag. One that is there is kept as it is. Whoever has the volume is fenced, as by
    /// [`DataStore::fence`]: what was acknowledged to it is in the tag.
    async fn tag_create(&self, boot: Place, config: Place, tag: TagId) -> Result<(), StoreError>;

    /// The tags of a boot volume, in order.
    async fn tags(&self, boot: Place) -> Result<Vec<TagId>, StoreError>;

    /// Removes a tag. What is at work on it is not disturbed; whoever has the volume may be fenced.
    async fn tag_remove(&self, boot: Place, config: Place, tag: TagId) -> Result<(), StoreError>;

    /// Makes a boot volume what it was at a tag; what was written since is gone, unless another tag has it. Whoever has the
    /// volume is fenced. Other tags stay, later ones included.
    async fn roll_back(
        &self,
        boot: Place,
        config: Place,
        tag: TagId,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// Replaces an open or absent image by what a boot volume was at a tag; it needs the volume no more. Whoever has the
    /// volume is fenced.
    async fn image_snapshot(
        &self,
        boot: Place,
        config: Place,
        tag: TagId,
        image: Place,
        progress: Progress<'_>,
    ) -> Result<(), StoreError>;

    /// Ends when this process can use the store no more, and only another one can. A store on this host is never lost so.
    async fn lost(&self) -> StoreError {
        std::future::pending().await
    }

    /// Where the blocks of a volume are.
    fn backing(&self, volume: Place) -> Backing;

    /// The kind, as in the configuration.
    fn kind(&self) -> &'static str;
}
