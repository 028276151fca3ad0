//! `backup`: the database and every key, in a directory that is whole when it has its name.
//!
//! It may be made while servers run: the database is read in one transaction. What is not in it: images and volumes,
//! which are the store's, and the configuration.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bmi_control_plane::config::Config;
use bmi_control_plane::sealed;
use bmi_db::Db;
use bmi_db::transfer::transfer_to_file;
use bmi_types::Timestamp;

use super::manifest::{DATABASE, FORMAT, Manifest, NAME, entry};
use super::{Done, block_on, file_remove, tell};

#[expect(clippy::print_stdout, reason = "a command tells what it did")]
pub fn run(config: &Config, to: &Path) -> Done {
    if to.exists() {
        return Err(format!("{} exists already", to.display()).into());
    }
    let partial = partial(to)?;
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&partial)?;
    let made = write(config, &partial).and_then(|()| {
        fs::rename(&partial, to)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?)
    });
    if made.is_err() {
        fs::remove_dir_all(&partial).ok();
    }
    made?;
    println!("backed up to {}", to.display());
    Ok(())
}

fn partial(to: &Path) -> Result<PathBuf, String> {
    let name = to.file_name().ok_or_else(|| format!("{} is no name for a backup", to.display()))?;
    Ok(to.with_file_name(format!(".{}.partial", name.display())))
}

fn write(config: &Config, folder: &Path) -> Done {
    let db = Db::open_as_it_is(&config.database_url())?;
    let database = folder.join(DATABASE);
    tell(&transfer_to_file(&db, &database)?);
    let mut files = vec![entry(folder, DATABASE)?];
    for (name, path) in config.key_files() {
        match fs::read(&path) {
            Ok(content) => {
                write_private(&folder.join(name), &content)?;
                files.push(entry(folder, name)?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        }
    }
    // A key that was replaced between the one and the other would make the backup worthless.
    // (Looked at in a copy: whoever opens a file of SQLite changes it.)
    let copy = folder.join("check.sqlite");
    fs::copy(&database, &copy)?;
    let opened = Db::open_as_it_is(&copy.display().to_string())?;
    block_on(sealed::opens_all(&opened, &folder.join("master.key")))??;
    drop(opened);
    file_remove(&copy)?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: Timestamp::now().micros(),
        files,
    };
    write_private(&folder.join(NAME), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(File::open(folder)?.sync_all()?)
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
