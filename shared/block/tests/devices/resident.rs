//! What can be sent from where it lies.

use bmi_block::{Access, BlockDevice, File};

#[test]
fn only_a_file_in_memory_can_be_sent_from() {
    let memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    memory.as_file().set_len(1 << 20).unwrap();
    let device = File::open(memory.path(), Access::ReadWrite).unwrap();
    assert!(device.resident(4096, 8192).is_some());
    assert!(device.resident((1 << 20) - 1, 2).is_none());
    let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let device = File::open(disk.path(), Access::ReadWrite).unwrap();
    device.write(4096, &[7; 8192]).unwrap();
    assert!(device.resident(4096, 8192).is_none(), "the page cache may drop it");
}
