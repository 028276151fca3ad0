//! What is in a local store, whoever knows of it, and where it goes that nobody knows.
//!
//! ```text
//! aside/<seconds>-<image|volume>-<project>-<id>-<file name>    set aside at that time (seconds since 1970)
//! ```
//!
//! Deliberately absent: touching a file whose name is not one of ours. It is told, and left.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi_types::Timestamp;
use fiemap::{Fiemap, FiemapExtentFlags};

use super::super::{Item, ItemKind, Place, StoreError};
use super::{io as fault, make_folder, parent, sync_folder};

/// Folders of the store, by what is in them.
const FOLDERS: [(&str, ItemKind); 3] =
    [("images", ItemKind::Image), ("volumes", ItemKind::Volume), ("tags", ItemKind::Volume)];
/// Where things go that nobody knows.
const ASIDE: &str = "aside";

/// Every image and volume, also one that was only begun.
pub(super) fn list(root: &Path) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    for (folder, kind) in FOLDERS {
        for project in entries(&root.join(folder))? {
            for file in entries(&project)? {
                match item(kind, &file) {
                    // An image being written and its temporary name are one, and so are a volume and its tags.
                    Some(item) if !items.contains(&item) => items.push(item),
                    Some(_) => {}
                    None => {
                        tracing::warn!(file = %file.display(), "a file in the store is none of ours; it is left alone");
                    }
                }
            }
        }
    }
    Ok(items)
}

/// Bytes of a file on the disk; nothing when it is not there. Of a volume, those that no other file shares.
pub(super) fn used(path: &Path, kind: ItemKind) -> Result<u64, StoreError> {
    let fail = |source| StoreError::io(format!("measure {}", path.display()), source);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(fail(error)),
    };
    if kind == ItemKind::Image {
        // Blocks of 512 bytes, whatever the file system's are (stat(2)).
        return Ok(file.metadata().map_err(fail)?.blocks().saturating_mul(512));
    }
    let mut own = 0_u64;
    for extent in Fiemap::new(&file) {
        let extent = extent.map_err(fail)?;
        if !extent.fe_flags.contains(FiemapExtentFlags::SHARED) {
            own = own.saturating_add(extent.fe_length);
        }
    }
    Ok(own)
}

/// Moves every file of an item away. What still has it open keeps it.
pub(super) fn set_aside(root: &Path, item: Item, now: Timestamp) -> Result<(), StoreError> {
    let aside = root.join(ASIDE);
    make_folder(&aside, 0o700)?;
    let kind = match item.kind {
        ItemKind::Image => "image",
        ItemKind::Volume => "volume",
    };
    let project = item.place.project.to_string();
    for (folder, _) in FOLDERS.iter().filter(|(_, kind)| *kind == item.kind) {
        let folder = root.join(folder).join(&project);
        let files = entries(&folder)?;
        for file in files.into_iter().filter(|file| self::item(item.kind, file) == Some(item)) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let seconds = now.micros() / 1_000_000;
            let to = aside.join(format!("{seconds}-{kind}-{project}-{name}"));
            fs::rename(&file, &to).map_err(|error| fault("set aside", &file, error))?;
        }
        match fs::remove_dir(&folder) {
            Ok(()) => sync_folder(parent(&folder))?,
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => sync_folder(&folder)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault("remove", &folder, error)),
        }
    }
    sync_folder(&aside)
}

/// Removes what was set aside longer ago than `keep`, and says how many files that were.
pub(super) fn expire(root: &Path, now: Timestamp, keep: Duration) -> Result<u64, StoreError> {
    let mut removed = 0;
    for file in entries(&root.join(ASIDE))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let at = name.split('-').next().and_then(|seconds| seconds.parse::<i64>().ok());
        let Some(at) = at else { continue };
        if now.since(Timestamp::from_micros(at.saturating_mul(1_000_000))) >= keep {
            fs::remove_file(&file).map_err(|error| fault("remove", &file, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// What is in a folder, in order; nothing when it is not there, or is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fault("list", folder, error)),
    };
    let entries: Result<Vec<PathBuf>, io::Error> = read.map(|entry| Ok(entry?.path())).collect();
    let mut entries = entries.map_err(|error| fault("list", folder, error))?;
    entries.sort();
    Ok(entries)
}

/// The item that a file `<project>/<id>.…` belongs to.
fn item(kind: ItemKind, file: &Path) -> Option<Item> {
    let volume = file.file_name()?.to_str()?.split_once('.')?.0.parse().ok()?;
    let project = parent(file).file_name()?.to_str()?.parse().ok()?;
    Some(Item { kind, place: Place { project, volume } })
}
