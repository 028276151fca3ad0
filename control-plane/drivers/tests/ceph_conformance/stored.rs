//! Imports of what is in the pool already: a copy, of what was meant and of nothing else.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bmi_drivers::store::{DataStore, ImageContent, Item, ItemKind, SourceError, StoreError, StoredSource};
use bmi_rbd::{Cluster, Identity, Image, Settings, Timeouts};
use bmi_tests::{Ceph, OpenStore};

use crate::{golden, open, open_importing, suite};

const MIB: u64 = 1 << 20;

fn named(name: &str) -> StoredSource {
    name.parse().unwrap()
}

/// Puts a file into the namespace to import from, under a name of the test's own.
fn put(ceph: &Ceph, file: &Path, name: &str) -> String {
    let place = format!("bmi/import/{name}");
    ceph.rbd(&["import", "--no-progress", file.to_str().unwrap(), &place]);
    place
}

/// A file with a little at the beginning of each object.
fn file(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    for at in (0..size).step_by(4 << 20) {
        file.as_file().write_all_at(&[at.to_le_bytes(), [1; 8]].concat(), at).unwrap();
    }
    file
}

fn sum(file: &Path) -> String {
    let sum = bmi_tests::run("sha256sum", &[file.to_str().unwrap()]);
    sum.split(' ').next().unwrap().to_owned()
}

/// Everything of an image that an import might change.
fn all_of(ceph: &Ceph, place: &str) -> String {
    let shown: serde_json::Value =
        serde_json::from_str(&ceph.rbd(&["info", "--format", "json", place])).unwrap();
    let id = shown.get("id").and_then(serde_json::Value::as_str).unwrap();
    // Other tests have images beside it.
    let objects = ceph.rados(&["--pool", "bmi", "--namespace", "import", "ls"]);
    let mut objects: Vec<&str> = objects.lines().filter(|object| object.contains(id)).collect();
    assert!(!objects.is_empty(), "{id}");
    objects.sort_unstable();
    // The access time is of reading.
    let info = ceph.rbd(&["info", place]);
    let info: Vec<&str> = info.lines().filter(|line| !line.contains("access_timestamp")).collect();
    let (snapshots, metadata) =
        (ceph.rbd(&["snap", "ls", "--all", place]), ceph.rbd(&["image-meta", "ls", place]));
    format!("{info:#?}\n{snapshots}\n{metadata}\n{objects:#?}")
}

async fn refused(opened: &OpenStore, name: &str) -> SourceError {
    let (store, image) = (&opened.store, suite::place());
    let source = named(name);
    let looked = store.source_inspect(&source).await.map(drop);
    let copied = store.image_import_stored(image, &source, &suite::quiet).await;
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent);
    let items = store.items().await.unwrap();
    assert!(items.iter().all(|item| item.place.project != image.project), "nothing is begun");
    match (looked, copied) {
        (Err(StoreError::Source(looked)), Err(StoreError::Source(copied))) => {
            assert_eq!(looked, copied);
            copied
        }
        other => panic!("{name}: {other:?}"),
    }
}

/// Opens an image to write, as a machine that runs from it does, and writes.
async fn in_use(ceph: &Ceph, name: &str) -> Image {
    let settings = Settings {
        conf: Some(ceph.conf()),
        mon_host: None,
        user: "admin".to_owned(),
        identity: Some(Identity::Keyring(ceph.admin_keyring())),
        timeouts: Timeouts::MANAGEMENT,
        options: Vec::new(),
    };
    let cluster = Cluster::connect(settings).await.unwrap();
    let pool = cluster.pool(ceph.pool(), "import").await.unwrap();
    let image = pool.image_open(name, bmi_rbd::Access::ReadWrite).await.unwrap();
    image.write(0, vec![9; 512].into()).await.unwrap();
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_the_pool_is_copied_and_stays_as_it_is() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let store = &opened.store;
    let (file, image) = (file(24 * MIB), suite::place());
    file.as_file().set_len(64 * MIB).unwrap();
    let place = put(ceph, file.path(), "plain");
    ceph.rbd(&["snap", "create", "--no-progress", &format!("{place}@old")]);
    let before = all_of(ceph, &place);
    let source = named("plain");
    let inspected = store.source_inspect(&source).await.unwrap();
    assert_eq!(inspected.virtual_size.bytes(), 64 * MIB);
    let told = AtomicU64::new(0);
    let progress = |done, total| {
        assert_eq!(total, 64 * MIB);
        told.store(done, Ordering::Relaxed);
    };
    store.image_import_stored(image, &source, &progress).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 64 * MIB);
    let used = store.item_used(Item { kind: ItemKind::Image, place: image }).await.unwrap();
    assert_eq!(used.bytes(), 24 * MIB, "what the image has not, the copy has not");
    assert_eq!(all_of(ceph, &place), before);

    // It is a copy: what becomes of the other one is nothing to it.
    let info = ceph.rbd(&["info", &format!("bmi/{}/image-{}", image.project, image.volume)]);
    assert!(!info.contains("parent: "), "{info}");
    ceph.rbd(&["snap", "rm", "--no-progress", &format!("{place}@old")]);
    ceph.rbd(&["rm", "--no-progress", &place]);
    let sealed = store.image_seal(image, &suite::quiet).await.unwrap();
    assert_eq!(sealed.sha256, sum(file.path()));

    // What is sealed is not replaced, whatever it is asked to become.
    let place = put(ceph, file.path(), "other");
    let again = store.image_import_stored(image, &named("other"), &suite::quiet).await;
    assert!(matches!(again, Err(StoreError::WrongState { state: "sealed", .. })), "{again:?}");
    assert_eq!(store.image_seal(image, &suite::quiet).await.unwrap(), sealed);
    ceph.rbd(&["rm", "--no-progress", &place]);
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_snapshot_that_was_cut_off_goes_on_and_one_of_what_may_change_begins_anew() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let store = &opened.store;
    let file = file(640 * MIB);
    let place = put(ceph, file.path(), "large");
    ceph.rbd(&["snap", "create", "--no-progress", &format!("{place}@v1")]);
    for (name, goes_on_at) in [("large@v1", 256 * MIB), ("large", 0)] {
        let (image, source) = (suite::place(), named(name));
        let reached = AtomicU64::new(0);
        let progress = |done, _| reached.store(done, Ordering::Relaxed);
        let cut = tokio::select! {
            done = store.image_import_stored(image, &source, &progress) => Some(done),
            () = async { while reached.load(Ordering::Relaxed) < 300 * MIB { tokio::task::yield_now().await } } => None,
        };
        assert!(cut.is_none(), "it was not cut off: {cut:?}");
        assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent, "half an image is none");
        let first = AtomicU64::new(u64::MAX);
        let progress = |done, _| {
            first.fetch_min(done, Ordering::Relaxed);
        };
        store.image_import_stored(image, &source, &progress).await.unwrap();
        assert_eq!(first.load(Ordering::Relaxed), goes_on_at, "{name}");
        let sealed = store.image_seal(image, &suite::quiet).await.unwrap();
        assert_eq!(sealed.sha256, sum(file.path()), "{name}");
        store.image_remove(image).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_away_while_it_is_copied_is_not_taken_for_zeroes() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let (store, image) = (&opened.store, suite::place());
    let file = file(64 * MIB);
    let place = put(ceph, file.path(), "fleeting");
    let snapshot = format!("{place}@v1");
    ceph.rbd(&["snap", "create", "--no-progress", &snapshot]);
    let removed = AtomicBool::new(false);
    let progress = |done, _| {
        if done > 0 && !removed.swap(true, Ordering::Relaxed) {
            ceph.rbd(&["snap", "rm", "--no-progress", &snapshot]);
            // Another one of that name is not the same.
            ceph.rbd(&["snap", "create", "--no-progress", &snapshot]);
        }
    };
    let source = named("fleeting@v1");
    let copied = store.image_import_stored(image, &source, &progress).await;
    assert!(
        matches!(&copied, Err(StoreError::Source(SourceError::Changed(which))) if *which == source),
        "{copied:?}"
    );
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent);
    store.image_import_stored(image, &source, &suite::quiet).await.unwrap();
    assert_eq!(store.image_seal(image, &suite::quiet).await.unwrap().sha256, sum(file.path()));
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_while_it_is_copied_is_refused_though_the_writer_is_gone_again() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let (store, image) = (&opened.store, suite::place());
    let place = put(ceph, file(64 * MIB).path(), "touched");
    let write = [
        "bench",
        "--rbd_mtime_update_interval=1",
        "--io-type",
        "write",
        "--io-size",
        "4K",
        "--io-total",
        "4K",
    ];
    let written = AtomicBool::new(false);
    let progress = |done, _| {
        if done > 0 && !written.swap(true, Ordering::Relaxed) {
            // The writer notes the time of its write when the last one is more than a second ago, in whole seconds.
            std::thread::sleep(std::time::Duration::from_millis(2500));
            ceph.rbd(&[&write[..], &[&place]].concat());
        }
    };
    let copied = store.image_import_stored(image, &named("touched"), &progress).await;
    assert!(matches!(copied, Err(StoreError::Source(SourceError::Changed(_)))), "{copied:?}");
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent);
    store.image_import_stored(image, &named("touched"), &suite::quiet).await.unwrap();
    store.image_remove(image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let place = put(ceph, file(4 * MIB).path(), "small");
    assert_eq!(refused(&opened, "none").await, SourceError::NoImage(named("none")));
    assert_eq!(refused(&opened, "small@none").await, SourceError::NoSnapshot(named("small@none")));
    // Names of images in other places are names of nothing here.
    let elsewhere = golden(&opened.store, 4 << 20).await;
    let name = format!("image-{}", elsewhere.volume);
    assert_eq!(refused(&opened, &name).await, SourceError::NoImage(named(&name)));
    ceph.rbd(&["trash", "mv", &place]);
    assert_eq!(refused(&opened, "small").await, SourceError::NoImage(named("small")));
    let without = open(ceph).await;
    assert_eq!(refused(&without, "small").await, SourceError::NotConfigured);
    opened.store.image_remove(elsewhere).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_clones_or_open_to_write_is_copied_only_at_a_snapshot() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let (store, image) = (&opened.store, suite::place());
    let file = file(8 * MIB);
    let place = put(ceph, file.path(), "busy");
    ceph.rbd(&["snap", "create", "--no-progress", &format!("{place}@v1")]);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &format!("{place}@v1"), "bmi/import/its-clone"]);
    assert_eq!(refused(&opened, "busy").await, SourceError::HasClones(named("busy")));
    // A clone that is thrown away can come back.
    ceph.rbd(&["trash", "mv", "bmi/import/its-clone"]);
    assert_eq!(refused(&opened, "busy").await, SourceError::HasClones(named("busy")));

    let writer = in_use(ceph, "busy").await;
    store.image_import_stored(image, &named("busy@v1"), &suite::quiet).await.unwrap();
    assert_eq!(
        store.image_seal(image, &suite::quiet).await.unwrap().sha256,
        sum(file.path()),
        "as it was at the snapshot"
    );
    let trash = ceph.rbd(&["trash", "ls", "bmi/import"]);
    let id = trash.lines().find(|line| line.ends_with(" its-clone")).unwrap().split(' ').next().unwrap();
    ceph.rbd(&["trash", "rm", "--no-progress", &format!("bmi/import/{id}")]);
    assert_eq!(refused(&opened, "busy").await, SourceError::InUse(named("busy")));
    writer.write(4096, vec![9; 512].into()).await.unwrap();
    writer.close().await.unwrap();
    let other = suite::place();
    store.image_import_stored(other, &named("busy"), &suite::quiet).await.unwrap();
    store.image_seal(other, &suite::quiet).await.unwrap();
    assert_eq!(store.image_read(other, 4096, 4).await.unwrap(), vec![9; 4], "as it is now");
    for image in [image, other] {
        store.image_remove(image).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_what_is_no_raw_disk_or_not_whole_in_its_place_is_refused_and_told_why() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let store = &opened.store;
    let told = async |name: &str| {
        let (source, image) = (named(name), suite::place());
        let looked = store.source_inspect(&source).await.unwrap_err();
        let copied = store.image_import_stored(image, &source, &suite::quiet).await.unwrap_err();
        assert_eq!(bmi_types::chain(&looked), bmi_types::chain(&copied));
        assert!(store.items().await.unwrap().iter().all(|item| item.place.project != image.project));
        bmi_types::chain(&copied)
    };
    for (size, name) in [("1048577B", "odd"), ("65536B", "tiny")] {
        ceph.rbd(&["create", &format!("bmi/import/{name}"), "--size", size]);
        assert!(told(name).await.contains("multiple of 512, from 1 MiB"), "{name}");
    }
    let qcow2 = tempfile::NamedTempFile::new().unwrap();
    qcow2.as_file().set_len(4 * MIB).unwrap();
    qcow2.as_file().write_all_at(b"QFI\xfb", 0).unwrap();
    put(ceph, qcow2.path(), "lying");
    assert!(told("lying").await.contains("qcow2"));

    // Encrypted by RBD itself.
    let word = tempfile::NamedTempFile::new().unwrap();
    word.as_file().write_all_at(b"secret", 0).unwrap();
    ceph.rbd(&["create", "bmi/import/encrypted", "--size", "32M"]);
    ceph.rbd(&["encryption", "format", "bmi/import/encrypted", "luks2", word.path().to_str().unwrap()]);
    assert!(told("encrypted").await.contains("LUKS"));

    let features = "layering,exclusive-lock,journaling";
    ceph.rbd(&["create", "bmi/import/journaled", "--size", "4M", "--image-feature", features]);
    ceph.rbd(&["snap", "create", "--no-progress", "bmi/import/journaled@v1"]);
    assert!(told("journaled").await.contains("journal"));
    store.source_inspect(&named("journaled@v1")).await.unwrap();

    ceph.rbd(&["create", "bmi/import/migrated", "--size", "4M"]);
    ceph.rbd(&["migration", "prepare", "bmi/import/migrated", "bmi/import/migrating"]);
    assert!(told("migrating").await.contains("rbd migration"));
    ceph.rbd(&["migration", "abort", "--no-progress", "bmi/import/migrating"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_a_projects_is_not_imported_by_way_of_a_clone() {
    let ceph = Ceph::shared();
    let opened = open_importing(ceph).await;
    let image = golden(&opened.store, 4 << 20).await;
    let of_project = format!("bmi/{}/image-{}@golden", image.project, image.volume);
    let clone = |from: &str, name: &str| {
        ceph.rbd(&["clone", "--rbd-default-clone-format", "2", from, &format!("bmi/import/{name}")]);
        ceph.rbd(&["snap", "create", "--no-progress", &format!("bmi/import/{name}@v1")]);
    };
    clone(&of_project, "of-project");
    clone("bmi/import/of-project@v1", "of-clone");
    for name in ["of-project@v1", "of-clone", "of-clone@v1"] {
        let told = refused(&opened, name).await.to_string();
        assert!(told.contains("belongs to a project"), "{name}: {told}");
    }
    // Once it needs nothing of the project's it is the operator's own.
    ceph.rbd(&["flatten", "--no-progress", "bmi/import/of-project"]);
    ceph.rbd(&["snap", "create", "--no-progress", "bmi/import/of-project@v2"]);
    opened.store.source_inspect(&named("of-project@v2")).await.unwrap();
}
