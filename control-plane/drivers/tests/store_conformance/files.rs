//! The local store's files: content, holes, permissions, and what a crash leaves.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use bmi_drivers::image::Converter;
use bmi_drivers::store::{Backing, DataStore, ImageContent, LocalStore, StoreError, prepare_local_directory};
use bmi_types::{ByteSize, TagId};
use sha2::{Digest, Sha256};

use crate::mounted::{Mounted, ROOMY};
use crate::suite::place;
use crate::suite::{quiet, raw_file};

const MIB: usize = 1 << 20;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Bytes that are not zero, and not all alike.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u8::try_from(state >> 56).unwrap() | 1
        })
        .collect()
}

#[tokio::test]
async fn what_is_uploaded_is_what_is_sealed_and_cloned() {
    let mounted = Mounted::new(ROOMY);
    let (store, image, volume) = (&mounted.store, place(), place());
    let content = noise(5 * MIB);
    store.image_create(image, ByteSize::new(content.len() as u64)).await.unwrap();
    // In pieces, of which one was cut off before it was acknowledged and comes again, with other bytes.
    store.image_write(image, 0, content[..MIB].to_vec().into()).await.unwrap();
    store.image_write(image, MIB as u64, vec![0xee; 2 * MIB].into()).await.unwrap();
    store.image_write(image, MIB as u64, content[MIB..].to_vec().into()).await.unwrap();
    let sealed = store.image_seal(image, &quiet).await.unwrap();
    assert_eq!(sealed.sha256, sha256(&content));
    store.volume_clone(image, volume).await.unwrap();
    let Backing::File(path) = store.backing(volume) else { panic!("the local store has files") };
    assert_eq!(path, mounted.volume_file(volume, "raw"));
    assert!(path.starts_with(store.volume_dir()));
    assert!(fs::read(&path).unwrap() == content, "the clone has other bytes than the image");

    // What the clone becomes, its image does not.
    File::options().write(true).open(&path).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    assert_eq!(store.image_seal(image, &quiet).await.unwrap(), sealed);
}

#[tokio::test]
async fn a_tag_keeps_what_a_volume_was_and_shares_its_blocks() {
    let mounted = Mounted::new(ROOMY);
    let (store, image, volume, made) = (&mounted.store, place(), place(), place());
    store.image_import(image, raw_file(4 * MIB, 1), &quiet).await.unwrap();
    store.image_seal(image, &quiet).await.unwrap();
    store.volume_clone(image, volume).await.unwrap();
    let path = mounted.volume_file(volume, "raw");
    let write = |value: u8| {
        File::options().write(true).open(&path).unwrap().write_all_at(&vec![value; MIB], 0).unwrap();
    };
    let [one, other] = [TagId::generate(), TagId::generate()];
    let used = store.usage().await.unwrap().used.bytes();
    for (value, tag) in [(2, one), (3, other)] {
        write(value);
        store.tag_create(volume, volume, tag).await.unwrap();
    }
    write(4);
    let server = File::options().write(true).open(&path).unwrap();
    for (tag, value) in [(one, 2), (other, 3), (one, 2)] {
        store.roll_back(volume, volume, tag, &quiet).await.unwrap();
        let content = fs::read(&path).unwrap();
        assert!(
            content[..MIB].iter().all(|byte| *byte == value) && content[MIB..].iter().all(|byte| *byte == 1)
        );
        assert_eq!(mode(&path), 0o600);
    }
    server.write_all_at(&[99; 512], 0).unwrap();
    assert_eq!(fs::read(&path).unwrap()[0], 2, "who had it before writes nowhere");
    store.image_snapshot(volume, volume, other, made, &quiet).await.unwrap();
    store.image_seal(made, &quiet).await.unwrap();
    assert_eq!(store.image_read(made, 0, 1).await.unwrap()[0], 3);
    drop(server);
    let taken = store.usage().await.unwrap().used.bytes() - used;
    assert!(taken < 4 * MIB as u64, "{taken} bytes for a volume with two tags and an image of one");
}

#[tokio::test]
async fn zeroes_replace_what_was_written_before_and_take_no_space() {
    let mounted = Mounted::new(ROOMY);
    let (store, image) = (&mounted.store, place());
    store.image_create(image, ByteSize::new(8 * MIB as u64)).await.unwrap();
    store.image_write(image, 0, vec![7; 4 * MIB].into()).await.unwrap();
    store.image_write(image, 0, vec![0; 8 * MIB].into()).await.unwrap();
    let sealed = store.image_seal(image, &quiet).await.unwrap();
    assert_eq!(sealed.sha256, sha256(&vec![0; 8 * MIB]));
    let used = on_disk(&mounted.image_file(image, "raw"));
    assert!(used <= MIB as u64, "{used} bytes for zeroes");
}

#[tokio::test]
async fn a_sparse_import_keeps_holes_and_content() {
    let mounted = Mounted::new(ROOMY);
    let (store, image) = (&mounted.store, place());
    let size = 256 * MIB;
    // In memory: a tmpfs has holes as well.
    let source = tempfile::tempfile_in("/dev/shm").unwrap();
    source.set_len(size as u64).unwrap();
    let mut content = vec![0; size];
    for at in [0, 100 * MIB, 200 * MIB + 4096, size - 4096] {
        let piece = noise(4096);
        source.write_all_at(&piece, at as u64).unwrap();
        content[at..at + 4096].copy_from_slice(&piece);
    }
    let heard = Mutex::new((0, 0));
    let progress = |done, total| *heard.lock().unwrap() = (done, total);
    store.image_import(image, source, &progress).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), (size as u64, size as u64), "the whole was told at the end");
    let used = on_disk(&mounted.image_file(image, "part"));
    assert!(used <= MIB as u64, "{used} bytes for 16 KiB of data");
    assert_eq!(store.image_seal(image, &quiet).await.unwrap().sha256, sha256(&content));
}

#[tokio::test]
async fn nobody_else_can_read_an_image_or_write_a_golden_one() {
    let mounted = Mounted::new(ROOMY);
    let (store, image, boot, config) = (&mounted.store, place(), place(), place());
    store.image_create(image, ByteSize::new(MIB as u64)).await.unwrap();
    assert_eq!(mode(&mounted.image_file(image, "part")), 0o600);
    store.image_seal(image, &quiet).await.unwrap();
    store.volume_clone(image, boot).await.unwrap();
    store.volume_put(config, vec![1; 4096].into()).await.unwrap();
    assert_eq!(mode(&mounted.image_file(image, "raw")), 0o400);
    assert_eq!([boot, config].map(|volume| mode(&mounted.volume_file(volume, "raw"))), [0o600; 2]);
    let folders = ["", "images", "volumes"].map(|folder| mode(&mounted.path.join(folder)));
    assert_eq!(
        folders,
        [0o711, 0o700, 0o711],
        "whoever has a volume may pass through to it, and list nothing"
    );
    assert_eq!(mode(mounted.image_file(image, "raw").parent().unwrap()), 0o700);
    assert_eq!(mode(mounted.volume_file(boot, "raw").parent().unwrap()), 0o711);

    // An import may have been open to the world; its copy is not.
    let other = place();
    store.image_import(other, raw_file(MIB, 1), &quiet).await.unwrap();
    assert_eq!(mode(&mounted.image_file(other, "part")), 0o600);
}

#[tokio::test]
async fn what_a_crash_left_is_replaced_and_removed() {
    let mounted = Mounted::new(ROOMY);
    let (store, image, volume) = (&mounted.store, place(), place());
    let leave = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"half").unwrap();
    };
    let (half_image, half_volume) = (mounted.image_file(image, "tmp"), mounted.volume_file(volume, "tmp"));

    leave(&half_image);
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent);
    store.image_import(image, raw_file(MIB, 3), &quiet).await.unwrap();
    assert!(!half_image.exists());
    // It died between making the file read-only and naming it.
    fs::set_permissions(mounted.image_file(image, "part"), Permissions::from_mode(0o400)).unwrap();
    assert_eq!(store.image_seal(image, &quiet).await.unwrap().sha256, sha256(&vec![3; MIB]));

    leave(&half_volume);
    assert!(!store.volume_exists(volume).await.unwrap());
    store.volume_clone(image, volume).await.unwrap();
    assert!(!half_volume.exists());
    assert_eq!(fs::read(mounted.volume_file(volume, "raw")).unwrap(), vec![3; MIB]);

    leave(&half_volume);
    store.volume_put(volume, vec![4; 512].into()).await.unwrap();
    assert!(!half_volume.exists());

    leave(&half_image);
    leave(&half_volume);
    store.image_remove(image).await.unwrap();
    store.volume_remove(volume).await.unwrap();
    mounted.nothing_is_left();
}

#[tokio::test]
async fn a_store_is_mounted_again_with_all_it_holds() {
    let mounted = Mounted::new(ROOMY);
    let volume = place();
    mounted.store.volume_put(volume, vec![1; 4096].into()).await.unwrap();
    mounted.remount();
    let store = LocalStore::open(mounted.path.clone(), Converter::nothing()).unwrap();
    assert!(store.volume_exists(volume).await.unwrap());
    // Where reflink works already, nothing more is mounted: the guard unmounts once.
    prepare_local_directory(&mounted.path, &mounted.path.join("unused.xfs"), ROOMY).unwrap();
    assert!(!mounted.path.join("unused.xfs").exists());
}

#[test]
fn a_store_that_cannot_be_made_says_what_to_do() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = directory.path().join("store.xfs");
    let size = ByteSize::new(299 * MIB as u64);
    let refused = prepare_local_directory(&directory.path().join("store"), &image, size).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unusable(reason) if reason.contains("at least 300.0 MiB")),
        "{refused}"
    );
    assert!(!image.exists());
}
