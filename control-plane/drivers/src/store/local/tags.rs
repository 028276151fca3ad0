//! Tags of local volumes: each a file that shares its blocks with the volume as it was then.
//!
//! `FICLONE` of a file that is written to meanwhile has what it held at one moment (`ioctl_ficlone(2)`): what was
//! acknowledged before is in it.

use std::fs::{self, File};
use std::path::PathBuf;

use bmi_types::TagId;

use super::{LocalStore, file_open, io, parent, publish, remove, remove_with_folder, sync_folder};
use crate::store::{Place, StoreError};

impl LocalStore {
    fn tag_folder(&self, volume: Place) -> PathBuf {
        self.root.join(format!("tags/{}", volume.project))
    }

    fn tag(&self, volume: Place, tag: TagId) -> PathBuf {
        self.tag_folder(volume).join(format!("{}.{tag}.raw", volume.volume))
    }

    fn tag_open(&self, volume: Place, tag: TagId) -> Result<File, StoreError> {
        match file_open(volume, &self.tag(volume, tag)) {
            Err(StoreError::Absent(place)) if self.volume(volume).exists() => {
                Err(StoreError::NoTag { place, tag })
            }
            opened => opened,
        }
    }

    pub(super) fn tag_make(&self, volume: Place, tag: TagId) -> Result<(), StoreError> {
        let path = self.tag(volume, tag);
        let source = file_open(volume, &self.volume(volume))?;
        if path.exists() {
            return Ok(());
        }
        publish(&path, 0o700, 0o400, |file| clone(file, &source, &path))
    }

    pub(super) fn tag_list(&self, volume: Place) -> Result<Vec<TagId>, StoreError> {
        let folder = self.tag_folder(volume);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("list", &folder, error)),
        };
        let of_volume = format!("{}.", volume.volume);
        let mut tags = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| io("list", &folder, error))?.file_name();
            let name = name.to_string_lossy();
            let tag = name.strip_prefix(&of_volume).and_then(|rest| rest.strip_suffix(".raw"));
            tags.extend(tag.and_then(|tag| tag.parse::<TagId>().ok()));
        }
        tags.sort();
        Ok(tags)
    }

    pub(super) fn tag_gone(&self, volume: Place, tag: TagId) -> Result<(), StoreError> {
        remove_with_folder(&self.tag(volume, tag))
    }

    /// Every tag of a volume, and what is left of one that was cut off.
    pub(super) fn tags_gone(&self, volume: Place) -> Result<(), StoreError> {
        let folder = self.tag_folder(volume);
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
        for entry in entries {
            let entry = entry.map_err(|error| io("list", &folder, error))?;
            if entry.file_name().to_string_lossy().starts_with(&format!("{}.", volume.volume)) {
                remove(&entry.path())?;
            }
        }
        match fs::remove_dir(&folder) {
            Ok(()) => sync_folder(parent(&folder)),
            // Those of others are there.
            Err(_) => sync_folder(&folder),
        }
    }

    pub(super) fn back_to(&self, volume: Place, tag: TagId) -> Result<(), StoreError> {
        let (path, source) = (self.volume(volume), self.tag_open(volume, tag)?);
        publish(&path, 0o711, 0o600, |file| clone(file, &source, &path))
    }

    pub(super) fn image_of(&self, volume: Place, tag: TagId, image: Place) -> Result<(), StoreError> {
        let _held = self.lock(image);
        self.not_sealed(image)?;
        let (path, source) = (self.open_image(image), self.tag_open(volume, tag)?);
        publish(&path, 0o700, 0o600, |file| clone(file, &source, &path))
    }
}

/// Makes an empty file share all blocks of another.
pub(super) fn clone(file: &File, source: &File, path: &std::path::Path) -> Result<(), StoreError> {
    rustix::fs::ioctl_ficlone(file, source).map_err(|errno| io("clone to", path, errno.into()))
}
