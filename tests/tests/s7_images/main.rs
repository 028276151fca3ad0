//! Images that are not raw: what is hostile is refused, what is good is converted, and who converts can do nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

mod converter;
mod good;
mod hostile;

use std::path::{Path, PathBuf};

use bmi_tests::{Deployment, run};

const MIB: usize = 1 << 20;
const IMAGES: &str = "/v1/projects/lab/images";

/// A file of the import directory.
fn file(deployment: &Deployment, name: &str) -> PathBuf {
    deployment.data.join("images").join(name)
}

/// A raw disk of 64 MiB: holes, noise, and text that compresses.
fn disk(deployment: &Deployment) -> PathBuf {
    let mut bytes = vec![0; 64 * MIB];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (at, byte) in bytes.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match at / (8 * MIB) {
            1 | 6 => *byte = state.to_le_bytes()[0],
            3 => *byte = b"golden image "[at % 13],
            _ => {}
        }
    }
    let path = file(deployment, "disk.raw");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn qemu_img(arguments: &[&str]) {
    run("qemu-img", arguments);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Changes bytes of a file.
fn patch(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}
