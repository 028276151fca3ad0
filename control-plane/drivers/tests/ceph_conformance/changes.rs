//! Exports, and images that are made to stand alone.

use std::sync::atomic::{AtomicU64, Ordering};

use bmi_drivers::store::DataStore;
use bmi_tests::Ceph;

use crate::{golden, open, suite};

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_image_is_exported_as_it_was_sealed() {
    let opened = open(Ceph::shared()).await;
    let store = &opened.store;
    let image = golden(store, 16 << 20).await;
    let read = store.image_read(image, 4000, 8388).await.unwrap();
    let expected = [vec![0; 96], vec![7; 8192], vec![0; 100]].concat();
    assert_eq!(read, expected);
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flatten_that_nobody_waits_for_stops_and_goes_on_when_it_is_asked_for() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let parent = golden(store, 1 << 30).await;
    let image = suite::place();
    ceph.rbd(&["namespace", "create", &format!("bmi/{}", image.project)]);
    let from = format!("bmi/{}/image-{}@golden", parent.project, parent.volume);
    let name = format!("bmi/{}/image-{}", image.project, image.volume);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &from, &name]);
    let has_parent = || ceph.rbd(&["info", &name]).contains("parent: ");
    let reached = AtomicU64::new(0);
    let progress = |done, _| reached.store(done, Ordering::Relaxed);
    let stopped = tokio::select! {
        done = store.image_flatten(image, &progress) => Some(done),
        () = async { while reached.load(Ordering::Relaxed) < 4 { tokio::task::yield_now().await } } => None,
    };
    assert!(stopped.is_none(), "it was done before it could be stopped: {stopped:?}");
    assert!(has_parent());
    let total = AtomicU64::new(0);
    store.image_flatten(image, &|_, all| total.store(all, Ordering::Relaxed)).await.unwrap();
    assert!(!has_parent() && total.load(Ordering::Relaxed) > 0);
    // It needs nothing of its parent any more.
    store.image_remove(parent).await.unwrap();
    store.reclaim().await.unwrap();
    store.image_seal(image, &suite::quiet).await.unwrap();
    assert_eq!(store.image_read(image, 4096, 4).await.unwrap(), vec![7; 4]);
    store.image_remove(image).await.unwrap();
}
