//! Golden images, their clones, and what is left when either goes.

use bmi_drivers::store::{Backing, DataStore, Item, ItemKind};
use bmi_tests::Ceph;
use bmi_types::ByteSize;

use crate::{golden, open, suite};

fn name(backing: &Backing) -> String {
    let Backing::Rbd { namespace, image } = backing else { panic!("{backing:?}") };
    format!("bmi/{namespace}/{image}")
}

#[tokio::test(flavor = "multi_thread")]
async fn k4_an_image_with_clones_is_retired_and_goes_with_the_last_of_them() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = golden(store, 16 << 20).await;
    let (one, other) = (suite::place(), suite::place());
    for volume in [one, other] {
        store.volume_clone(image, volume).await.unwrap();
    }
    let info = ceph.rbd(&["info", &name(&store.backing(one))]);
    assert!(info.contains(&format!("parent: bmi/{}/image-{}@golden", image.project, image.volume)), "{info}");
    assert!(info.contains("exclusive-lock, object-map, fast-diff, deep-flatten"), "{info}");
    store.image_remove(image).await.unwrap();
    let space = format!("bmi/{}", image.project);
    let retired = format!("retired-{}", image.volume);
    for volume in [one, other] {
        store.reclaim().await.unwrap();
        assert_eq!(ceph.rbd(&["ls", &space]).trim(), retired, "its clones read from it");
        // A clone still reads what it was cloned from.
        let read =
            ["bench", "--io-type", "read", "--io-size", "4M", "--io-total", "16M", "--io-pattern", "seq"];
        ceph.rbd(&[&read[..], &[&name(&store.backing(volume))]].concat());
        store.volume_remove(volume).await.unwrap();
    }
    // The first look empties the clones' trash and then finds no clone.
    store.reclaim().await.unwrap();
    assert_eq!(ceph.rbd(&["ls", &space]).trim(), "");
    assert_eq!(ceph.rbd(&["trash", "ls", "-a", &space]).trim(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_takes_what_it_differs_by() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = golden(store, 16 << 20).await;
    let volume = suite::place();
    store.volume_clone(image, volume).await.unwrap();
    let used = async |kind, place| store.item_used(Item { kind, place }).await.unwrap().bytes();
    assert_eq!(used(ItemKind::Volume, volume).await, 0, "a fresh clone");
    assert_eq!(used(ItemKind::Image, image).await, 4 << 20, "one object");
    let volume_name = name(&store.backing(volume));
    ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "8K", &volume_name]);
    assert_eq!(used(ItemKind::Volume, volume).await, 4 << 20, "one object was copied");
    store.volume_remove(volume).await.unwrap();
    store.image_remove(image).await.unwrap();
    store.reclaim().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_made_anew() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = golden(store, 16 << 20).await;
    let volume = suite::place();
    store.volume_clone(image, suite::place()).await.unwrap();
    let space = format!("bmi/{}", volume.project);
    ceph.rbd(&["namespace", "create", &space]);
    // Half a clone: of another size, without a parent.
    let left = format!("{space}/new-volume-{}", volume.volume);
    ceph.rbd(&["create", &left, "--size", "1M"]);
    assert!(!store.volume_exists(volume).await.unwrap(), "what is not whole is not there");
    assert!(
        store.items().await.unwrap().contains(&Item { kind: ItemKind::Volume, place: volume }),
        "but it is found"
    );
    store.volume_clone(image, volume).await.unwrap();
    assert!(ceph.rbd(&["info", &name(&store.backing(volume))]).contains("size 16 MiB"));
    assert!(!ceph.rbd(&["ls", &space]).contains("new-"));
    store.volume_remove(volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_strangers_is_not_used_and_strangers_are_left_alone() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let image = suite::place();
    let space = format!("bmi/{}", image.project);
    ceph.rbd(&["namespace", "create", &space]);
    ceph.rbd(&["create", &format!("{space}/accounting"), "--size", "1M"]);
    ceph.rbd(&["create", &format!("{space}/thrown-away"), "--size", "1M"]);
    ceph.rbd(&["trash", "mv", &format!("{space}/thrown-away")]);
    let refused = store.image_create(image, ByteSize::new(1 << 20)).await.unwrap_err().to_string();
    assert!(refused.contains("accounting") && refused.contains(&space), "{refused}");
    assert!(store.items().await.unwrap().iter().all(|item| item.place.project != image.project));
    store.reclaim().await.unwrap();
    assert_eq!(ceph.rbd(&["ls", &space]).trim(), "accounting", "nothing was made beside it, and it is there");
    let trash = ceph.rbd(&["trash", "ls", &space]);
    assert!(trash.contains("thrown-away"), "what others threw away is theirs: {trash}");
}

/// librbd ends a process that removes an image when another client, or the same one, begins to remove it, too.
#[tokio::test(flavor = "multi_thread")]
async fn many_volumes_are_removed_at_once_by_two_servers() {
    let ceph = Ceph::shared();
    let (one, other) = (open(ceph).await, open(ceph).await);
    let image = golden(&one.store, 2 << 30).await;
    let project = image.project;
    let volumes: Vec<_> = (0..32)
        .map(|_| bmi_drivers::store::Place { project, volume: bmi_types::VolumeId::generate() })
        .collect();
    for volume in &volumes {
        one.store.volume_clone(image, *volume).await.unwrap();
    }
    let mut removals = tokio::task::JoinSet::new();
    for (number, volume) in volumes.into_iter().enumerate() {
        let store = if number % 2 == 0 { one.store.clone() } else { other.store.clone() };
        removals.spawn(async move {
            store.volume_remove(volume).await.unwrap();
            store.reclaim().await.unwrap();
        });
    }
    removals.join_all().await;
    one.store.image_remove(image).await.unwrap();
    for _ in 0..2 {
        one.store.reclaim().await.unwrap();
    }
    assert_eq!(ceph.images(&project.to_string()).len(), 0);
}
