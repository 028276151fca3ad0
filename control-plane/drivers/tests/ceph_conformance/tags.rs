//! Tags of boot volumes: what is in them, how deep clones get, and what is left when they go.

use std::sync::atomic::{AtomicU64, Ordering};

use bmi_drivers::store::{DataStore, Item, ItemKind, Place};
use bmi_rbd::Image;
use bmi_tests::{Ceph, OpenStore};
use bmi_types::TagId;

use crate::fences::{Boot, boot, broker};
use crate::suite::quiet;
use crate::{open, suite};

/// A boot volume as its broker has it.
async fn disk(store: &dyn DataStore, boot: Place) -> Image {
    broker(&store.access(&[boot]).await.unwrap(), store, boot).await
}

async fn write(disk: &Image, offset: u64, value: u8) {
    disk.write(offset, vec![value; 512].into()).await.unwrap();
    disk.flush().await.unwrap();
}

async fn read(disk: &Image, offset: u64) -> u8 {
    let bytes = disk.read(offset, 512).await.unwrap();
    let first = *bytes.first().unwrap();
    assert!(bytes.iter().all(|byte| *byte == first), "a sector is of one value");
    first
}

async fn tag(store: &dyn DataStore, boot: &Boot) -> TagId {
    let tag = TagId::generate();
    store.tag_create(boot.boot, boot.config, tag).await.unwrap();
    tag
}

/// Writes by a server of its own, which is gone then.
async fn written(store: &dyn DataStore, boot: Place, value: u8) {
    let disk = disk(store, boot).await;
    write(&disk, 0, value).await;
    disk.close().await.unwrap();
}

async fn value(store: &dyn DataStore, boot: Place) -> u8 {
    let disk = disk(store, boot).await;
    let value = read(&disk, 0).await;
    assert_eq!(read(&disk, 4096).await, 7, "what the golden image has");
    disk.close().await.unwrap();
    value
}

async fn remove(opened: &OpenStore, boot: &Boot) {
    for volume in [boot.boot, boot.config] {
        opened.store.volume_remove(volume).await.unwrap();
    }
    opened.store.image_remove(boot.image).await.unwrap();
}

/// Names of what is behind an image, the youngest first.
fn parents(ceph: &Ceph, name: &str) -> Vec<String> {
    let mut behind = Vec::new();
    let mut name = name.to_owned();
    loop {
        let info: serde_json::Value =
            serde_json::from_str(&ceph.rbd(&["info", &name, "--format", "json"])).unwrap();
        let Some(parent) = info.get("parent") else { return behind };
        let text = |key: &str| parent[key].as_str().unwrap().to_owned();
        name = format!("bmi/{}/{}", text("pool_namespace"), text("image"));
        behind.push(name.clone());
    }
}

fn volume_name(boot: Place) -> String {
    format!("bmi/{}/volume-{}", boot.project, boot.volume)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_has_everything_that_was_acknowledged_and_any_tag_can_be_gone_back_to() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let at = boot(store).await;
    let server = disk(store, at.boot).await;
    write(&server, 0, 1).await;
    let first = tag(store, &at).await;
    let refused = server.write(0, vec![99; 512].into()).await.unwrap_err();
    assert!(refused.is_fenced(), "who had it when it was tagged has it no more: {refused:?}");
    drop(server);

    written(store, at.boot, 2).await;
    let second = tag(store, &at).await;
    written(store, at.boot, 3).await;
    let server = disk(store, at.boot).await;
    for (tag, expected) in [(first, 1), (second, 2), (first, 1)] {
        store.roll_back(at.boot, at.config, tag, &quiet).await.unwrap();
        assert_eq!(value(store, at.boot).await, expected);
        written(store, at.boot, 4).await;
    }
    assert!(server.write(0, vec![99; 512].into()).await.is_err(), "who had it before writes nowhere");
    drop(server);
    // The tag that the volume was made of can go, and the volume lives on.
    store.tag_remove(at.boot, at.config, first).await.unwrap();
    assert_eq!(store.tags(at.boot).await.unwrap(), [second]);
    assert_eq!(value(store, at.boot).await, 4);
    remove(&opened, &at).await;
    for _ in 0..4 {
        store.reclaim().await.unwrap();
    }
    for space in [at.boot.project, at.image.project] {
        let space = format!("bmi/{space}");
        assert_eq!(ceph.rbd(&["ls", &space]).trim(), "");
        assert_eq!(ceph.rbd(&["trash", "ls", "-a", &space]).trim(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_again_and_again_leaves_few_images_behind_a_volume() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let at = boot(store).await;
    let told = AtomicU64::new(0);
    let mut deepest = 0;
    for round in 1..=6 {
        written(store, at.boot, round).await;
        let tag = tag(store, &at).await;
        written(store, at.boot, 99).await;
        let progress = |done, _| {
            told.fetch_max(done, Ordering::Relaxed);
        };
        store.roll_back(at.boot, at.config, tag, &progress).await.unwrap();
        assert_eq!(value(store, at.boot).await, round);
        deepest = deepest.max(parents(ceph, &volume_name(at.boot)).len());
    }
    assert_eq!(deepest, 3, "{:?}", parents(ceph, &volume_name(at.boot)));
    assert!(told.load(Ordering::Relaxed) > 0, "copying tells how far it is");
    remove(&opened, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_goes_on_wherever_it_was_cut_off() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let at = boot(store).await;
    written(store, at.boot, 1).await;
    let first = tag(store, &at).await;
    written(store, at.boot, 2).await;
    // Between the two renames: there is no volume, and its image has a former one's name.
    let space = format!("bmi/{}", at.boot.project);
    let info: serde_json::Value =
        serde_json::from_str(&ceph.rbd(&["info", &volume_name(at.boot), "--format", "json"])).unwrap();
    let former = format!("{space}/former-{}-volume-{}", info["id"].as_str().unwrap(), at.boot.volume);
    ceph.rbd(&["rename", &volume_name(at.boot), &former]);
    assert!(!store.volume_exists(at.boot).await.unwrap());
    assert_eq!(store.tags(at.boot).await.unwrap(), [first]);
    for _ in 0..2 {
        store.roll_back(at.boot, at.config, first, &quiet).await.unwrap();
        assert_eq!(value(store, at.boot).await, 1);
    }
    // What has no tag and no clone any more is not kept.
    assert_eq!(ceph.rbd(&["ls", &space]).lines().filter(|name| name.starts_with("former-")).count(), 1);
    remove(&opened, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tags_and_former_images_keep_counts_as_the_volumes_own() {
    let opened = open(Ceph::shared()).await;
    let store = &opened.store;
    let at = boot(store).await;
    let item = Item { kind: ItemKind::Volume, place: at.boot };
    let used = async || store.item_used(item).await.unwrap().bytes();
    let fill = async |value| {
        let disk = disk(store, at.boot).await;
        for offset in [0, 8 << 20] {
            write(&disk, offset, value).await;
        }
        disk.close().await.unwrap();
    };
    fill(1).await;
    let before = used().await;
    assert_eq!(before, 2 * (4 << 20), "two objects");
    let first = tag(store, &at).await;
    assert_eq!(used().await, before, "a tag by itself takes nothing");
    fill(2).await;
    assert_eq!(used().await, 2 * before, "what was overwritten is kept for the tag");
    store.roll_back(at.boot, at.config, first, &quiet).await.unwrap();
    assert_eq!(used().await, 2 * before, "what the volume was is kept as well");
    remove(&opened, &at).await;
}

/// Who has a volume's key can write as if there were no tags: what was tagged is then no more what it was. An image, which
/// others boot from, must not follow.
#[tokio::test(flavor = "multi_thread")]
async fn s4_an_image_made_of_a_tag_does_not_follow_what_the_volumes_key_writes() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let at = boot(store).await;
    written(store, at.boot, 1).await;
    let first = tag(store, &at).await;
    let image = suite::place();
    store.image_snapshot(at.boot, at.config, first, image, &quiet).await.unwrap();
    let name = format!("bmi/{}/image-{}", image.project, image.volume);
    assert_eq!(parents(ceph, &name), [] as [String; 0]);
    let sealed = store.image_seal(image, &quiet).await.unwrap();

    // Past librbd, into the volume's first object, without the snapshot in the write's context.
    let info: serde_json::Value =
        serde_json::from_str(&ceph.rbd(&["info", &volume_name(at.boot), "--format", "json"])).unwrap();
    let object = format!("rbd_data.{}.0000000000000000", info["id"].as_str().unwrap());
    let junk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(junk.path(), [66; 4096]).unwrap();
    let space = at.boot.project.to_string();
    ceph.rados(&["-p", "bmi", "-N", &space, "put", &object, junk.path().to_str().unwrap()]);
    store.roll_back(at.boot, at.config, first, &quiet).await.unwrap();
    let disk = disk(store, at.boot).await;
    assert_eq!(read(&disk, 0).await, 66, "the attack does something: the tag is not what it was");
    disk.close().await.unwrap();

    assert_eq!(store.image_seal(image, &quiet).await.unwrap(), sealed);
    assert_eq!(store.image_read(image, 0, 1).await.unwrap()[0], 1);
    store.image_remove(image).await.unwrap();
    remove(&opened, &at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_tag_that_was_cut_off_goes_on() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let at = boot(store).await;
    written(store, at.boot, 1).await;
    let first = tag(store, &at).await;
    let image = suite::place();
    {
        let (seen, began) = tokio::sync::watch::channel(false);
        let progress = move |_, _| {
            seen.send_replace(true);
        };
        let mut began = began;
        let work = store.image_snapshot(at.boot, at.config, first, image, &progress);
        tokio::select! {
            // So small a volume may be through before anybody looks.
            done = work => done.unwrap(),
            _ = began.changed() => {}
        }
    }
    store.image_snapshot(at.boot, at.config, first, image, &quiet).await.unwrap();
    store.image_seal(image, &quiet).await.unwrap();
    assert_eq!(store.image_read(image, 0, 1).await.unwrap()[0], 1);
    let left = ceph.rbd(&["ls", &format!("bmi/{}", image.project)]);
    assert_eq!(left.trim(), format!("image-{}", image.volume));
    store.image_remove(image).await.unwrap();
    remove(&opened, &at).await;
}
