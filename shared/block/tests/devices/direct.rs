//! Files past the page cache, on the filesystem that holds the build.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bmi_block::{Access, BlockDevice, Caching, File};

use crate::array::behaves_like_an_array;

const SIZE: u64 = 3 << 20;

fn file(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

fn direct(path: &Path) -> std::io::Result<File> {
    File::open_with(path, Access::ReadWrite, Caching::Direct)
}

#[test]
fn it_behaves_like_an_array_wherever_a_range_begins() {
    let file = file(SIZE);
    let device = direct(file.path()).unwrap();
    // Half of them are whole blocks.
    let model = behaves_like_an_array(&device, 3, 300, &[4096, 1]);
    assert!(
        fs::read(file.path()).unwrap() == model,
        "others see it too, and the file is no longer than it was"
    );
}

#[test]
fn it_is_opened_past_the_page_cache_and_always_waits() {
    let file = file(SIZE);
    let device = direct(file.path()).unwrap();
    let flags = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let is_it = fs::read_link(entry.path()).ok()? == file.path();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.file_name().display())).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        is_it.then(|| u32::from_str_radix(&flags, 8).unwrap())
    });
    let is_direct = |flags: u32| flags & rustix::fs::OFlags::DIRECT.bits() != 0;
    assert_eq!(flags.filter(|flags| is_direct(*flags)).count(), 1);
    assert!(device.read_now(0, &mut [0; 4096]).is_none() && device.write_now(0, &[0; 4096]).is_none());
    assert!(device.read_now(SIZE, &mut [0]).unwrap().is_err());
}

#[test]
fn neighbours_in_one_block_do_not_undo_each_other() {
    let file = file(SIZE);
    let device = Arc::new(direct(file.path()).unwrap());
    let writers: Vec<_> = (0..8_u64)
        .map(|writer| {
            let device = Arc::clone(&device);
            std::thread::spawn(move || {
                for round in 0..50_u8 {
                    for offset in [writer * 512, 8192 + writer * 1024] {
                        device.write(offset, &[round + 1; 512]).unwrap();
                        let mut read = [0; 512];
                        device.read(offset, &mut read).unwrap();
                        assert_eq!(read, [round + 1; 512]);
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
}

#[test]
fn what_cannot_be_accessed_directly_says_why() {
    let error = direct(file(SIZE + 512).path()).unwrap_err();
    let expected =
        format!("direct access needs a size that is a multiple of 4096 bytes, and this has {}", SIZE + 512);
    assert_eq!(error.to_string(), expected);
    // A filesystem that has no direct access.
    let error =
        File::open_with(Path::new("/proc/self/status"), Access::ReadOnly, Caching::Direct).unwrap_err();
    let expected = "the filesystem does not support direct access (O_DIRECT); use the page cache";
    assert_eq!((error.kind(), error.to_string().as_str()), (std::io::ErrorKind::Unsupported, expected));
}
