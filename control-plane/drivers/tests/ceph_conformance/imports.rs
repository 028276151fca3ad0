//! Imports: sparse, resumable, and nothing half made.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bmi_drivers::store::{DataStore, ImageContent, Item, ItemKind, StoreError};
use bmi_tests::Ceph;
use bmi_types::ByteSize;

use crate::{open, suite};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_import_leaves_zeroes_out_and_is_what_the_file_is() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = suite::place();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 * MIB).unwrap();
    file.as_file().write_all_at(&[1; 100], 5 * MIB + 7).unwrap();
    file.as_file().write_all_at(&vec![0; 8 << 20], 16 * MIB).unwrap();
    file.as_file().write_all_at(&[2; 512], 64 * MIB - 512).unwrap();
    file.flush().unwrap();
    let told = AtomicU64::new(0);
    let progress = |done, total| {
        assert_eq!(total, 64 * MIB);
        told.store(done, Ordering::Relaxed);
    };
    store.image_import(image, file.reopen().unwrap(), &progress).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 64 * MIB);
    let used = store.item_used(Item { kind: ItemKind::Image, place: image }).await.unwrap();
    assert_eq!(used.bytes(), 2 * 4 * MIB, "two objects: written zeroes are left out too");
    let sealed = store.image_seal(image, &suite::quiet).await.unwrap();
    let sum = bmi_tests::run("sha256sum", &[file.path().to_str().unwrap()]);
    assert_eq!(sealed.sha256, sum.split(' ').next().unwrap());
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_cut_off_goes_on_where_it_was() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = opened.store.clone();
    let image = suite::place();
    let file = tempfile::NamedTempFile::new().unwrap();
    let size = 640 * MIB;
    file.as_file().set_len(size).unwrap();
    // A little in each object, so that there is little to write and all of it matters.
    for at in (0..size).step_by(4 << 20) {
        file.as_file().write_all_at(&at.to_le_bytes(), at).unwrap();
        file.as_file().write_all_at(&[1], at).unwrap();
    }
    let (reached, source) = (AtomicU64::new(0), file.reopen().unwrap());
    let progress = |done, _| reached.store(done, Ordering::Relaxed);
    let cut = tokio::select! {
        done = store.image_import(image, source, &progress) => Some(done),
        () = async { while reached.load(Ordering::Relaxed) < 300 * MIB { tokio::task::yield_now().await } } => None,
    };
    assert!(cut.is_none(), "it was not cut off");
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent, "half an image is none");
    let first = AtomicU64::new(u64::MAX);
    let progress = |done, _| {
        first.fetch_min(done, Ordering::Relaxed);
    };
    store.image_import(image, file.reopen().unwrap(), &progress).await.unwrap();
    assert_eq!(first.load(Ordering::Relaxed), 256 * MIB, "it went on from what was noted last");
    let sealed = store.image_seal(image, &suite::quiet).await.unwrap();
    let sum = bmi_tests::run("sha256sum", &[file.path().to_str().unwrap()]);
    assert_eq!(sealed.sha256, sum.split(' ').next().unwrap());
    assert_eq!(sealed.size, ByteSize::new(size));
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_import_of_another_file_is_not_used() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = suite::place();
    let space = format!("bmi/{}", image.project);
    ceph.rbd(&["namespace", "create", &space]);
    let left = format!("{space}/new-image-{}", image.volume);
    ceph.rbd(&["create", &left, "--size", "4M"]);
    ceph.rbd(&["image-meta", "set", &left, "bmi.import", "1:2:4194304:3.4 2097152"]);
    ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4M", &left]);
    store.image_import(image, suite::raw_file(4 << 20, 5), &suite::quiet).await.unwrap();
    let sealed = store.image_seal(image, &suite::quiet).await.unwrap();
    let sum = bmi_tests::run("sh", &["-c", "head -c 4194304 /dev/zero | tr '\\0' '\\5' | sha256sum"]);
    assert_eq!(sealed.sha256, sum.split(' ').next().unwrap());
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_while_an_import_runs_stays_and_the_import_fails() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let (store, image) = (&opened.store, suite::place());
    let space = format!("bmi/{}", image.project);
    let name = format!("{space}/image-{}", image.volume);
    let sealed = AtomicBool::new(false);
    let progress = |done, total| {
        // By somebody else, in the last moment.
        if done == total && !sealed.swap(true, Ordering::Relaxed) {
            ceph.rbd(&["create", &name, "--size", "4M"]);
            ceph.rbd(&["snap", "create", "--no-progress", &format!("{name}@golden")]);
        }
    };
    let refused = store.image_import(image, suite::raw_file(8 << 20, 5), &progress).await;
    assert!(
        matches!(refused, Err(StoreError::WrongState { place, state: "sealed" }) if place == image),
        "{refused:?}"
    );
    let golden = ImageContent::Sealed { size: ByteSize::new(4 * MIB) };
    assert_eq!(store.image_observe(image).await.unwrap(), golden);
    assert_eq!(ceph.rbd(&["ls", &space]).trim(), format!("image-{}", image.volume), "nothing half made");
    store.image_remove(image).await.unwrap();
}
