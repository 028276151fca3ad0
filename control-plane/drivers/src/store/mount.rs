//! Prepares the directory of a local store: one whose filesystem has reflink, or a loop-mounted XFS image.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use bmi_types::{ByteSize, Timestamp};
use rustix::fs::{FallocateFlags, fallocate};

use super::StoreError;

/// Smallest image `mkfs.xfs` takes (xfsprogs refuses less than 300 MiB).
const IMAGE_MIN: ByteSize = ByteSize::new(300 << 20);

/// Makes `directory` usable as a store. Where its filesystem has no reflink, `image` is preallocated with `size`,
/// formatted as XFS and mounted there; one that exists is mounted again.
///
/// # Errors
/// When the directory has no reflink and no image can be made and mounted, with what to do about it.
pub fn prepare(directory: &Path, image: &Path, size: ByteSize) -> Result<(), StoreError> {
    fs::create_dir_all(directory).map_err(|source| io("create", directory, source))?;
    if has_reflink(directory)? {
        return Ok(());
    }
    if size < IMAGE_MIN {
        return Err(StoreError::Unusable(format!(
            "store.size is {size}; a loop-mounted XFS needs at least {IMAGE_MIN}"
        )));
    }
    if !image.exists() {
        make_image(image, size)?;
    }
    run(Command::new("mount").args(["-o", "loop,nodev,nosuid,noexec"]).arg(image).arg(directory), directory)?;
    if has_reflink(directory)? {
        return Ok(());
    }
    Err(StoreError::Unusable(format!("{} is mounted, but has no reflink", directory.display())))
}

/// Whether two files in the directory can share blocks: tried, not guessed.
fn has_reflink(directory: &Path) -> Result<bool, StoreError> {
    // Replicas that start at once try at once, and none must see another's files.
    let own = format!("{}-{}", std::process::id(), Timestamp::now().micros());
    let (from, to) =
        (directory.join(format!(".reflink-from-{own}")), directory.join(format!(".reflink-to-{own}")));
    let fail = |source| io("write to", directory, source);
    fs::write(&from, [0_u8; 4096]).map_err(fail)?;
    let target = File::create(&to).map_err(fail)?;
    let source = File::open(&from).map_err(fail)?;
    let cloned = rustix::fs::ioctl_ficlone(&target, &source);
    for path in [from, to] {
        fs::remove_file(path).map_err(fail)?;
    }
    Ok(cloned.is_ok())
}

fn make_image(image: &Path, size: ByteSize) -> Result<(), StoreError> {
    let temporary = image.with_extension("new");
    let fail = |source| StoreError::io(format!("preallocate {size} at {}", image.display()), source);
    let file = File::create(&temporary).map_err(fail)?;
    fallocate(&file, FallocateFlags::empty(), 0, size.bytes())
        .map_err(|errno| fail(errno.into()))
        .inspect_err(|_| {
            fs::remove_file(&temporary).ok();
        })?;
    run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&temporary), image)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&temporary, image).map_err(fail)
}

fn run(command: &mut Command, about: &Path) -> Result<(), StoreError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let hint = "run the control plane as root with xfsprogs installed, or put data_dir on XFS or btrfs";
    let output = command.output().map_err(|source| {
        StoreError::Unusable(format!(
            "{} has no reflink, and {name} cannot be run ({source}); {hint}",
            about.display()
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(StoreError::Unusable(format!(
        "{} has no reflink, and {name} failed: {}; {hint}",
        about.display(),
        said.trim()
    )))
}

fn io(verb: &str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::io(format!("{verb} {}", path.display()), source)
}
