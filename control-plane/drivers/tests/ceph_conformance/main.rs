//! The `ceph` store on a real Ceph: what every data store must do, and what only this one has: users, fences, the trash, and
//! a start that says what is missing.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod changes;
mod clones;
mod fences;
mod headers;
mod imports;
mod preflight;
mod stored;
#[path = "../store_conformance/suite.rs"]
mod suite;
mod tags;

use bmi_drivers::store::{DataStore, Place};
use bmi_tests::{Ceph, OpenStore};
use bmi_types::ByteSize;

/// Opens the store as a control plane does, with the rights that it has.
pub async fn open(ceph: &Ceph) -> OpenStore {
    OpenStore::open(ceph).await
}

/// The same where images can be imported from the namespace `import`.
pub async fn open_importing(ceph: &Ceph) -> OpenStore {
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| drop(ceph.rbd(&["namespace", "create", "bmi/import"])));
    OpenStore::open_with(ceph, |settings| settings.import_namespace = Some("import".to_owned())).await
}

/// A golden image of a size with some bytes in it.
pub async fn golden(store: &dyn DataStore, size: u64) -> Place {
    let image = suite::place();
    store.image_create(image, ByteSize::new(size)).await.unwrap();
    store.image_write(image, 4096, vec![7; 8192].into()).await.unwrap();
    store.image_seal(image, &suite::quiet).await.unwrap();
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ceph_store_conforms() {
    let ceph = Ceph::start();
    let opened = open(&ceph).await;
    suite::run(&opened.store).await;
    // Nothing is left but empty namespaces.
    for _ in 0..2 {
        opened.store.reclaim().await.unwrap();
    }
    let spaces: Vec<serde_json::Value> =
        serde_json::from_str(&ceph.rbd(&["namespace", "ls", "bmi", "--format", "json"])).unwrap();
    for space in spaces {
        let space = format!("bmi/{}", space["name"].as_str().unwrap());
        assert_eq!(ceph.rbd(&["ls", &space]).trim(), "");
        assert_eq!(ceph.rbd(&["trash", "ls", "-a", &space]).trim(), "");
    }
    assert!(opened.records.is_empty());
    let users = ceph.ceph(&["auth", "ls"]);
    assert!(!users.lines().any(|line| line.starts_with("client.bmi-")), "{users}");
}
