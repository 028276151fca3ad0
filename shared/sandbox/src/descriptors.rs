//! Descriptors that whoever started a launcher may have left open.

use std::fs;
use std::io;

use nix::unistd::close;

/// Closes every descriptor but the standard three and those to keep.
///
/// # Errors
/// When there is no `/proc`.
pub fn close_others(kept: &[i32]) -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2 && !kept.contains(descriptor)) {
        // The descriptor of the listing itself is closed already.
        let _ = close(descriptor);
    }
    Ok(())
}
