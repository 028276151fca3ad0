//! Users of boot volumes, and fencing whoever has one.

use std::collections::BTreeMap;

use bmi_drivers::store::ceph::CephRecords;
use bmi_drivers::store::{Access, Backing, DataStore, Place};
use bmi_rbd::{Cluster, Identity, Image, Settings, Timeouts};
use bmi_tests::Ceph;
use bmi_types::VolumeId;

use crate::{golden, open, suite};

/// Opens a boot volume as its broker does.
pub async fn broker(access: &BTreeMap<VolumeId, Access>, store: &dyn DataStore, volume: Place) -> Image {
    let access = &access[&volume.volume];
    let settings = Settings {
        conf: None,
        mon_host: Some(access.mon_host.clone()),
        user: access.user.clone(),
        identity: Some(Identity::Key(access.key.clone())),
        timeouts: Timeouts::DISK,
        options: vec![("rbd_blocklist_on_break_lock".to_owned(), "false".to_owned())],
    };
    let Backing::Rbd { namespace, image } = store.backing(volume) else { panic!("it is in Ceph") };
    let cluster = Cluster::connect(settings).await.unwrap();
    let pool = cluster.pool(&access.pool, &namespace).await.unwrap();
    pool.image_open(&image, bmi_rbd::Access::ReadWrite).await.unwrap()
}

/// A boot volume, what it was cloned from, and what is beside it.
pub struct Boot {
    pub image: Place,
    pub boot: Place,
    pub config: Place,
}

pub async fn boot(store: &dyn DataStore) -> Boot {
    let image = golden(store, 16 << 20).await;
    let boot = suite::place();
    let config = Place { project: boot.project, volume: VolumeId::generate() };
    store.volume_clone(image, boot).await.unwrap();
    store.volume_put(config, vec![3; 65536].into()).await.unwrap();
    assert!(!store.access_exists(boot).await.unwrap());
    for _ in 0..2 {
        store.access_ensure(boot, config).await.unwrap();
        assert!(store.access_exists(boot).await.unwrap());
    }
    Boot { image, boot, config }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_volumes_user_is_made_with_it_and_goes_with_it() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let Boot { image, boot, config } = boot(store).await;
    let access = store.access(&[boot]).await.unwrap();
    let disk = broker(&access, store, boot).await;
    assert_eq!(disk.read(4096, 4).await.unwrap(), [7; 4], "what it was cloned from");
    disk.write(0, vec![9; 512].into()).await.unwrap();
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    for volume in [boot, config] {
        store.volume_remove(volume).await.unwrap();
    }
    assert!(!store.access_exists(boot).await.unwrap());
    let users = ceph.ceph(&["auth", "ls"]);
    assert!(!users.contains(&boot.volume.to_string()), "{users}");
    store.image_remove(image).await.unwrap();
    store.reclaim().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_who_is_fenced_writes_no_more_and_who_comes_next_does() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let Boot { boot, config, .. } = boot(store).await;
    let before = store.access(&[boot]).await.unwrap();
    let old = broker(&before, store, boot).await;
    old.write(0, vec![1; 512].into()).await.unwrap();
    old.flush().await.unwrap();
    assert!(old.is_locked_by_us().await.unwrap());

    store.fence(boot, config).await.unwrap();
    let after = store.access(&[boot]).await.unwrap();
    assert_ne!(before[&boot.volume].key, after[&boot.volume].key, "the old key is worth nothing");
    let new = broker(&after, store, boot).await;
    new.write(0, vec![2; 512].into()).await.unwrap();
    new.flush().await.unwrap();
    let refused = old.write(0, vec![1; 512].into()).await.unwrap_err();
    assert!(refused.is_fenced(), "{refused:?}");
    assert_eq!(new.read(0, 512).await.unwrap(), vec![2; 512]);
    // Who is on the list is in the records, and stays until the longest ticket is over.
    let fences = opened.records.fences().await.unwrap();
    assert_eq!(fences.len(), 1, "{fences:?}");
    let listed = || ceph.ceph(&["osd", "blocklist", "ls"]);
    assert!(listed().contains(&fences[0].address), "{}", listed());
    store.reclaim().await.unwrap();
    assert!(listed().contains(&fences[0].address), "it may still have a ticket");
    opened.records.age_fences(218 * 3600);
    store.reclaim().await.unwrap();
    assert!(!listed().contains(&fences[0].address));
    assert!(opened.records.fences().await.unwrap().is_empty());
    new.close().await.unwrap();
    drop(old);
    for volume in [boot, config] {
        store.volume_remove(volume).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_a_volume_that_is_removed_is_taken_from_whoever_has_it() {
    let ceph = Ceph::shared();
    let opened = open(ceph).await;
    let store = &opened.store;
    let Boot { boot, config, .. } = boot(store).await;
    let access = store.access(&[boot]).await.unwrap();
    let disk = broker(&access, store, boot).await;
    disk.write(0, vec![1; 512].into()).await.unwrap();
    store.volume_remove(boot).await.unwrap();
    assert!(!store.volume_exists(boot).await.unwrap());
    let refused = disk.write(0, vec![1; 512].into()).await;
    assert!(refused.is_err(), "it wrote into what was removed");
    store.volume_remove(config).await.unwrap();
}
