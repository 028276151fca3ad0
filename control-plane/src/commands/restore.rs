//! `restore`: a backup into the configured database and key files, which hold nothing else.
//!
//! Everything is looked at before anything is written. The keys come first and the database last, in one transaction:
//! after a crash in between, the same command goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bmi_control_plane::config::Config;
use bmi_control_plane::{data_dir, sealed};
use bmi_db::transfer::{self, Held as Leases, transfer};
use bmi_db::{Db, Held, Purpose};

use super::manifest::{DATABASE, FORMAT, Manifest, NAME, entry};
use super::{Done, block_on, file_remove, tell};

#[expect(clippy::print_stdout, reason = "a command tells what it did")]
pub fn run(config: &Config, from: &Path) -> Done {
    let _directory = data_dir::hold(&config.data_dir)?;
    let keys = checked(config, from)?;
    let url = config.database_url();
    let _held = Held::of_url(&url, Purpose::Whole)?;
    let target = Db::open(&url)?;
    if !transfer::empty(&target)? {
        return Err("the configured database is not empty; a backup is restored into an empty one".into());
    }
    for key in keys.iter().filter(|key| !key.there) {
        key_write(&key.content, &key.path)?;
        println!("restored {}", key.path.display());
    }
    // What an older release backed up is brought up to date in a copy.
    let copy = config.data_dir.join("restore.sqlite");
    file_remove(&copy)?;
    fs::copy(from.join(DATABASE), &copy)?;
    let restored = restored(&copy, &target);
    file_remove(&copy)?;
    restored?;
    block_on(sealed::opens_all(&target, &config.master_key_path()))??;
    // It speaks of the database that was there before.
    let head = config.data_dir.join("audit.head");
    if head.exists() {
        let aside = config.data_dir.join("audit.head.before-restore");
        fs::rename(&head, &aside)?;
        println!("the head of the audit log before the restore is in {}", aside.display());
    }
    println!("restored the database");
    Ok(())
}

fn restored(copy: &Path, target: &Db) -> Done {
    let source = Db::open(&copy.display().to_string())?;
    tell(&transfer(&source, target, Leases::Ended)?);
    Ok(())
}

/// A key of the backup and where it belongs.
struct Key {
    path: PathBuf,
    content: Vec<u8>,
    there: bool,
}

/// The keys of a backup that is whole, none of which would replace another.
fn checked(config: &Config, from: &Path) -> Result<Vec<Key>, Box<dyn std::error::Error + Send + Sync>> {
    let text = fs::read(from.join(NAME))
        .map_err(|error| format!("{} is no backup: {NAME}: {error}", from.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| format!("{}: {NAME} cannot be read: {error}", from.display()))?;
    if manifest.format != FORMAT {
        return Err(
            format!("the backup has format {}, and this release reads {FORMAT}", manifest.format).into()
        );
    }
    let mut places: Vec<(&str, Option<PathBuf>)> = vec![(DATABASE, None)];
    places.extend(config.key_files().map(|(name, path)| (name, Some(path))));
    let mut keys = Vec::new();
    for file in &manifest.files {
        let found = entry(from, &file.name).map_err(|error| format!("{}: {error}", file.name))?;
        if (found.bytes, &found.sha256) != (file.bytes, &file.sha256) {
            return Err(format!("{} is not what was backed up: its SHA-256 differs", file.name).into());
        }
        let place = places.iter().find(|(name, _)| *name == file.name);
        let Some((_, path)) = place else {
            return Err(format!("the backup has a file {} that this release does not know", file.name).into());
        };
        let Some(path) = path else { continue };
        let content = fs::read(from.join(&file.name))?;
        let there = match fs::read(path) {
            Ok(other) if other == content => true,
            Ok(_) => return Err(format!("{} exists and differs from the backup's", path.display()).into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        keys.push(Key { path: path.clone(), content, there });
    }
    for needed in [DATABASE, "master.key"] {
        if !manifest.files.iter().any(|file| file.name == needed) {
            return Err(format!("the backup has no {needed}").into());
        }
    }
    Ok(keys)
}

fn key_write(content: &[u8], path: &Path) -> Done {
    let temporary = path.with_extension("restored");
    file_remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?)
}
