//! The `local` store: raw files on a filesystem with reflink.
//!
//! ```text
//! images/<project>/<id>.upload  a file that is sent as it is, to be converted
//! images/<project>/<id>.part    an open image
//! images/<project>/<id>.raw     a golden image, mode 0400
//! volumes/<project>/<id>.raw    a boot volume or config volume; the agent gives it to the target's user
//! tags/<project>/<id>.<tag>.raw what a volume was at a tag, mode 0400
//! aside/…                       what nobody knew, kept for a while
//! ```
//!
//! A clone is one `FICLONE` into a temporary name, then fsync, rename, fsync of the directory: a final name is
//! always whole. Blocking calls run on tokio's blocking threads.

mod items;
mod tags;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{ByteSize, ImageFormat, TagId, Timestamp, VolumeId};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest, Sha256};

use crate::image::{Conversion, Converter, ConverterError, Inspected, inspect};

use super::sparse::{CHUNK, Stretch, each_stretch, part};
use super::{
    Access, Backing, DataStore, ImageContent, Item, ItemKind, Place, Progress, Sealed, SourceError,
    StoreError, StoredSource, Usage, source_size, within,
};

/// What a file is called while it is filled, and an upload among its siblings.
const TEMPORARY: &str = "tmp";
const UPLOAD: &str = "upload";
const UPLOAD_TEMPORARY: &str = "upload-tmp";
/// Locks that images share by hash: enough that two uploads seldom meet, and a fixed number.
const STRIPES: usize = 64;

/// A local store.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: Arc<PathBuf>,
    /// Held while an image's bytes or name change, so that no write lands in an image that was sealed meanwhile.
    stripes: Arc<[Mutex<()>; STRIPES]>,
    converter: Arc<Converter>,
}

impl LocalStore {
    /// Opens the store in a prepared directory (see [`super::prepare_local_directory`]).
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub fn open(root: PathBuf, converter: Converter) -> Result<Self, StoreError> {
        for (folder, mode) in [("images", 0o700), ("volumes", 0o711)] {
            let path = root.join(folder);
            make_folder(&path, mode)?;
        }
        fs::set_permissions(&root, Permissions::from_mode(0o711))
            .map_err(|source| io("open", &root, source))?;
        let stripes = Arc::new(std::array::from_fn(|_| Mutex::new(())));
        Ok(Self { root: Arc::new(root), stripes, converter: Arc::new(converter) })
    }

    /// Keeps others from changing an image meanwhile.
    fn lock(&self, place: Place) -> Option<MutexGuard<'_, ()>> {
        let stripe = place.volume.uuid().as_u128() % STRIPES as u128;
        let stripe = self.stripes.get(usize::try_from(stripe).unwrap_or(0));
        stripe.map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directory below which every volume is.
    #[must_use]
    pub fn volume_dir(&self) -> PathBuf {
        self.root.join("volumes")
    }

    fn open_image(&self, place: Place) -> PathBuf {
        self.root.join(format!("images/{}/{}.part", place.project, place.volume))
    }

    fn upload(&self, place: Place) -> PathBuf {
        self.root.join(format!("images/{}/{}.upload", place.project, place.volume))
    }

    fn golden(&self, place: Place) -> PathBuf {
        self.root.join(format!("images/{}/{}.raw", place.project, place.volume))
    }

    fn volume(&self, place: Place) -> PathBuf {
        self.root.join(format!("volumes/{}/{}.raw", place.project, place.volume))
    }

    fn not_sealed(&self, place: Place) -> Result<(), StoreError> {
        if self.golden(place).exists() {
            return Err(StoreError::WrongState { place, state: "sealed" });
        }
        Ok(())
    }

    fn upload_open(&self, place: Place) -> Result<File, StoreError> {
        file_open(place, &self.upload(place))
    }

    /// Makes an empty file of a size, unless it is there.
    fn file_create(&self, place: Place, path: &Path, size: ByteSize) -> Result<(), StoreError> {
        let _held = self.lock(place);
        self.not_sealed(place)?;
        if size_of(path)? == Some(size.bytes()) {
            return Ok(());
        }
        publish(path, 0o700, 0o600, |file| {
            file.set_len(size.bytes()).map_err(|source| io("size", path, source))
        })
    }

    /// Writes into a file that is there, and nothing beyond its end.
    fn file_write(&self, place: Place, path: &Path, offset: u64, bytes: &Bytes) -> Result<(), StoreError> {
        let _held = self.lock(place);
        self.not_sealed(place)?;
        let size = size_of(path)?.ok_or(StoreError::Absent(place))?;
        within(place, size, offset, bytes.len() as u64)?;
        let fail = |source| io("write", path, source);
        let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
        for (at, chunk) in (offset..).step_by(CHUNK).zip(bytes.chunks(CHUNK)) {
            if chunk.iter().any(|byte| *byte != 0) {
                file.write_all_at(chunk, at).map_err(fail)?;
            } else {
                // Zeroes become holes, also where an upload that was cut off has written something before.
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, hole, at, chunk.len() as u64).map_err(|errno| fail(errno.into()))?;
            }
        }
        file.sync_data().map_err(fail)
    }

    /// Replaces a file by a copy of another.
    async fn file_copy(
        &self,
        place: Place,
        path: PathBuf,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        let size = source_size(&source)?;
        with_progress(progress, size, move |said| {
            let _held = store.lock(place);
            store.not_sealed(place)?;
            publish(&path, 0o700, 0o600, |file| {
                copy_sparse(&source, file, size, &|done| said.done(done))
                    .map_err(|source| io("fill", &path, source))
            })
        })
        .await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Self) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(store))
            .await
            .unwrap_or_else(|failed| Err(StoreError::Unusable(format!("a store task failed: {failed}"))))
    }
}

fn io(verb: &str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::io(format!("{verb} {}", path.display()), source)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|source| io("create", path, source))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|source| io("protect", path, source))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The name of a file until it is whole. An upload has one of its own: it is there while its image is filled.
fn temporary(path: &Path) -> PathBuf {
    let upload = path.extension().is_some_and(|extension| extension == UPLOAD);
    path.with_extension(if upload { UPLOAD_TEMPORARY } else { TEMPORARY })
}

fn file_open(place: Place, path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Absent(place),
        _ => io("open", path, error),
    })
}

/// Makes a file appear under its final name, whole and durable, or not at all.
fn publish(
    path: &Path,
    folder_mode: u32,
    mode: u32,
    fill: impl FnOnce(&mut File) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let folder = parent(path);
    make_folder(folder, folder_mode)?;
    let temporary = temporary(path);
    remove(&temporary)?;
    let fail = |source| io("write", &temporary, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(fail)?;
    let filled = fill(&mut file).and_then(|()| file.sync_all().map_err(fail));
    if let Err(error) = filled {
        remove(&temporary).ok();
        return Err(error);
    }
    fs::rename(&temporary, path).map_err(|source| io("name", path, source))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(|source| io("sync", folder, source))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Removes a file and, when it was the last, its project's folder.
fn remove_with_folder(path: &Path) -> Result<(), StoreError> {
    remove(&temporary(path))?;
    remove(path)?;
    match fs::remove_dir(parent(path)) {
        Ok(()) => sync_folder(parent(parent(path))),
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => sync_folder(parent(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("remove", parent(path), error)),
    }
}

fn size_of(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("look at", path, error)),
    }
}

/// Copies the data of a sparse file and leaves its holes.
fn copy_sparse(from: &File, to: &mut File, size: u64, progress: &dyn Fn(u64)) -> std::io::Result<()> {
    to.set_len(size)?;
    let mut buffer = vec![0; CHUNK];
    each_stretch(from, size, |at, stretch| {
        if let Stretch::Data(length) = stretch {
            let chunk = part(&mut buffer, length);
            from.read_exact_at(chunk, at)?;
            to.write_all_at(chunk, at)?;
        }
        progress(at);
        Ok(())
    })?;
    progress(size);
    Ok(())
}

/// SHA-256 of a whole file, holes as the zeroes they stand for.
fn checksum(path: &Path, size: u64, progress: &dyn Fn(u64)) -> std::io::Result<String> {
    let file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut zeroes = vec![0; CHUNK];
    each_stretch(&file, size, |at, stretch| {
        match stretch {
            Stretch::Hole(length) => digest.update(part(&mut zeroes, length)),
            Stretch::Data(length) => {
                let chunk = part(&mut buffer, length);
                file.read_exact_at(chunk, at)?;
                digest.update(chunk);
            }
        }
        progress(at);
        Ok(())
    })?;
    progress(size);
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What work on a blocking thread hears and says.
struct Said(tokio::sync::watch::Sender<u64>);

impl Said {
    fn done(&self, done: u64) {
        self.0.send_replace(done);
    }

    /// Whether anybody still waits for the work.
    fn wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// Carries progress out of a blocking thread.
async fn with_progress<T: Send + 'static>(
    progress: Progress<'_>,
    total: u64,
    work: impl FnOnce(&Said) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, mut receiver) = tokio::sync::watch::channel(0_u64);
    let task = tokio::task::spawn_blocking(move || work(&Said(sender)));
    while receiver.changed().await.is_ok() {
        progress(*receiver.borrow_and_update(), total);
    }
    task.await.unwrap_or_else(|failed| Err(StoreError::Unusable(format!("a store task failed: {failed}"))))
}

#[async_trait]
impl DataStore for LocalStore {
    async fn image_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.blocking(move |store| store.file_create(place, &store.open_image(place), size)).await
    }

    async fn image_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(move |store| store.file_write(place, &store.open_image(place), offset, &bytes)).await
    }

    async fn upload_create(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.blocking(move |store| store.file_create(place, &store.upload(place), size)).await
    }

    async fn upload_write(&self, place: Place, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(move |store| store.file_write(place, &store.upload(place), offset, &bytes)).await
    }

    async fn upload_copy(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let path = self.upload(place);
        self.file_copy(place, path, source, progress).await
    }

    async fn upload_observe(&self, place: Place) -> Result<Option<ByteSize>, StoreError> {
        self.blocking(move |store| Ok(size_of(&store.upload(place))?.map(ByteSize::new))).await
    }

    async fn upload_inspect(&self, place: Place, format: ImageFormat) -> Result<Inspected, StoreError> {
        self.blocking(move |store| {
            let file = match format {
                ImageFormat::Raw => file_open(place, &store.open_image(place)),
                ImageFormat::Qcow2 => store.upload_open(place),
            };
            Ok(inspect(&file?, format)?)
        })
        .await
    }

    async fn upload_remove(&self, place: Place) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let _held = store.lock(place);
            remove_with_folder(&store.upload(place))
        })
        .await
    }

    async fn image_convert(
        &self,
        place: Place,
        format: ImageFormat,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let size = self.upload_inspect(place, format).await?.virtual_size;
        let store = self.clone();
        with_progress(progress, size.bytes(), move |said| {
            let _held = store.lock(place);
            store.not_sealed(place)?;
            let (source, path) = (store.upload_open(place)?, store.open_image(place));
            // Looked at again under the lock: these are the bytes that are converted.
            let size = inspect(&source, format)?.virtual_size;
            publish(&path, 0o700, 0o600, |file| {
                file.set_len(size.bytes()).map_err(|source| io("size", &path, source))?;
                let conversion = Conversion { source: &source, format, destination: file, size };
                Ok(store.converter.convert(&conversion, &|done| said.done(done), &|| said.wanted())?)
            })
        })
        .await
    }

    fn conversion_ready(&self) -> Result<(), ConverterError> {
        self.converter.ready()
    }

    async fn image_import(
        &self,
        place: Place,
        source: File,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let path = self.open_image(place);
        self.file_copy(place, path, source, progress).await
    }

    async fn source_inspect(&self, _source: &StoredSource) -> Result<Inspected, StoreError> {
        Err(SourceError::NoneHere(self.kind()).into())
    }

    async fn image_import_stored(
        &self,
        _place: Place,
        _source: &StoredSource,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        Err(SourceError::NoneHere(self.kind()).into())
    }

    async fn image_seal(&self, place: Place, progress: Progress<'_>) -> Result<Sealed, StoreError> {
        let store = self.clone();
        let size = match self.image_observe(place).await? {
            ImageContent::Absent => return Err(StoreError::Absent(place)),
            ImageContent::Open { size } | ImageContent::Sealed { size } => size,
        };
        with_progress(progress, size.bytes(), move |said| {
            let (open, golden) = (store.open_image(place), store.golden(place));
            let held = store.lock(place);
            if !golden.exists() {
                let fail = |source| io("seal", &open, source);
                File::open(&open).and_then(|file| file.sync_all()).map_err(fail)?;
                fs::set_permissions(&open, Permissions::from_mode(0o400)).map_err(fail)?;
                fs::rename(&open, &golden).map_err(fail)?;
                sync_folder(parent(&golden))?;
            }
            drop(held);
            let sha256 = checksum(&golden, size.bytes(), &|done| said.done(done))
                .map_err(|source| io("read", &golden, source))?;
            Ok(Sealed { size, sha256 })
        })
        .await
    }

    async fn image_resize(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let _held = store.lock(place);
            store.not_sealed(place)?;
            let path = store.open_image(place);
            let file = OpenOptions::new().write(true).open(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => StoreError::Absent(place),
                _ => io("open", &path, error),
            })?;
            let resized = file.set_len(size.bytes()).and_then(|()| file.sync_all());
            resized.map_err(|source| io("resize", &path, source))
        })
        .await
    }

    async fn image_read(&self, place: Place, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        self.blocking(move |store| {
            let path = store.golden(place);
            let size = match size_of(&path)? {
                Some(size) => size,
                None if store.open_image(place).exists() => {
                    return Err(StoreError::WrongState { place, state: "not sealed" });
                }
                None => return Err(StoreError::Absent(place)),
            };
            let length = size.saturating_sub(offset).min(u64::from(length));
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            let read = file_open(place, &path)?.read_exact_at(&mut bytes, offset);
            read.map_err(|source| io("read", &path, source))?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    // Files share blocks, and none needs another.
    async fn image_flatten(&self, place: Place, progress: Progress<'_>) -> Result<(), StoreError> {
        match self.image_observe(place).await? {
            ImageContent::Absent => Err(StoreError::Absent(place)),
            ImageContent::Open { size } | ImageContent::Sealed { size } => {
                progress(size.bytes(), size.bytes());
                Ok(())
            }
        }
    }

    async fn image_observe(&self, place: Place) -> Result<ImageContent, StoreError> {
        self.blocking(move |store| {
            if let Some(size) = size_of(&store.golden(place))? {
                return Ok(ImageContent::Sealed { size: ByteSize::new(size) });
            }
            Ok(match size_of(&store.open_image(place))? {
                Some(size) => ImageContent::Open { size: ByteSize::new(size) },
                None => ImageContent::Absent,
            })
        })
        .await
    }

    async fn image_remove(&self, place: Place) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let _held = store.lock(place);
            remove_with_folder(&store.upload(place))?;
            remove_with_folder(&store.open_image(place))?;
            remove_with_folder(&store.golden(place))
        })
        .await
    }

    async fn volume_clone(&self, golden: Place, volume: Place) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let path = store.volume(volume);
            if path.exists() {
                return Ok(());
            }
            let source = store.golden(golden);
            let state = if store.open_image(golden).exists() { Some("not sealed") } else { None };
            let opened = File::open(&source).map_err(|error| match (error.kind(), state) {
                (std::io::ErrorKind::NotFound, Some(state)) => {
                    StoreError::WrongState { place: golden, state }
                }
                (std::io::ErrorKind::NotFound, None) => StoreError::Absent(golden),
                _ => io("open", &source, error),
            })?;
            publish(&path, 0o711, 0o600, |file| tags::clone(file, &opened, &path))
        })
        .await
    }

    async fn volume_put(&self, volume: Place, content: Bytes) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let path = store.volume(volume);
            publish(&path, 0o711, 0o600, |file| {
                file.write_all(&content).map_err(|source| io("write", &path, source))
            })
        })
        .await
    }

    async fn volume_exists(&self, volume: Place) -> Result<bool, StoreError> {
        self.blocking(move |store| Ok(size_of(&store.volume(volume))?.is_some())).await
    }

    async fn volume_remove(&self, volume: Place) -> Result<(), StoreError> {
        self.blocking(move |store| {
            store.tags_gone(volume)?;
            remove_with_folder(&store.volume(volume))
        })
        .await
    }

    async fn items(&self) -> Result<Vec<Item>, StoreError> {
        self.blocking(|store| items::list(&store.root)).await
    }

    async fn set_aside(&self, item: Item) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let _held = store.lock(item.place);
            items::set_aside(&store.root, item, Timestamp::now())
        })
        .await
    }

    async fn aside_expire(&self, keep: Duration) -> Result<u64, StoreError> {
        self.blocking(move |store| items::expire(&store.root, Timestamp::now(), keep)).await
    }

    async fn item_used(&self, item: Item) -> Result<ByteSize, StoreError> {
        self.blocking(move |store| {
            let place = item.place;
            let paths = match item.kind {
                ItemKind::Image => vec![store.golden(place), store.open_image(place), store.upload(place)],
                ItemKind::Volume => vec![store.volume(place)],
            };
            let mut used = 0_u64;
            for path in paths {
                used = used.saturating_add(items::used(&path, item.kind)?);
            }
            Ok(ByteSize::new(used))
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.blocking(|store| {
            let fs = rustix::fs::statvfs(store.root.as_path())
                .map_err(|errno| io("measure", &store.root, errno.into()))?;
            let bytes = |blocks: u64| ByteSize::new(blocks.saturating_mul(fs.f_frsize));
            Ok(Usage { capacity: bytes(fs.f_blocks), used: bytes(fs.f_blocks.saturating_sub(fs.f_bfree)) })
        })
        .await
    }

    async fn reclaim(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn access_ensure(&self, _boot: Place, _config: Place) -> Result<(), StoreError> {
        Ok(())
    }

    async fn access_exists(&self, _boot: Place) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn access(&self, _boots: &[Place]) -> Result<BTreeMap<VolumeId, Access>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn tag_create(&self, boot: Place, _config: Place, tag: TagId) -> Result<(), StoreError> {
        self.blocking(move |store| store.tag_make(boot, tag)).await
    }

    async fn tags(&self, boot: Place) -> Result<Vec<TagId>, StoreError> {
        self.blocking(move |store| {
            if size_of(&store.volume(boot))?.is_none() {
                return Err(StoreError::Absent(boot));
            }
            store.tag_list(boot)
        })
        .await
    }

    async fn tag_remove(&self, boot: Place, _config: Place, tag: TagId) -> Result<(), StoreError> {
        self.blocking(move |store| store.tag_gone(boot, tag)).await
    }

    // A server that still has the file open keeps what it had, and nobody sees what it writes.
    async fn roll_back(
        &self,
        boot: Place,
        _config: Place,
        tag: TagId,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.blocking(move |store| store.back_to(boot, tag)).await
    }

    async fn image_snapshot(
        &self,
        boot: Place,
        _config: Place,
        tag: TagId,
        image: Place,
        _progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.blocking(move |store| store.image_of(boot, tag, image)).await
    }

    // Its volumes are on one host, whose agent ends a server before it starts another.
    async fn fence(&self, _boot: Place, _config: Place) -> Result<(), StoreError> {
        Ok(())
    }

    fn backing(&self, volume: Place) -> Backing {
        Backing::File(self.volume(volume))
    }

    fn kind(&self) -> &'static str {
        "local"
    }
}

#[cfg(test)]
mod tests {
    use bmi_types::ProjectId;

    use super::*;

    /// A write that began before an image is sealed must end before it, or it would land in a golden image.
    #[tokio::test(flavor = "multi_thread")]
    async fn changes_of_one_image_wait_for_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path().join("store"), Converter::nothing()).unwrap();
        let place = Place { project: ProjectId::generate(), volume: VolumeId::generate() };
        store.image_create(place, ByteSize::new(1 << 20)).await.unwrap();
        let held = store.lock(place);
        let write = tokio::spawn({
            let store = store.clone();
            async move { store.image_write(place, 0, Bytes::from(vec![1; 4096])).await }
        });
        let seal = tokio::spawn({
            let store = store.clone();
            async move { store.image_seal(place, &|_, _| {}).await }
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!write.is_finished() && !seal.is_finished(), "both wait for who changes the image");
        drop(held);
        let sealed = seal.await.unwrap().unwrap();
        match write.await.unwrap() {
            Ok(()) | Err(StoreError::WrongState { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(sealed.sha256, checksum(&store.golden(place), 1 << 20, &|_| {}).unwrap());
    }
}
