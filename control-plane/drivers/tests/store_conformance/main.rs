//! What every data store must do, run against each; and what only the local store has: blocks, files, a full disk.
//!
//! Needs root, since a file system is mounted. What cannot run fails.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod files;
mod mounted;
mod space;
mod suite;

use bmi_drivers::store::{Backing, DataStore, Item, ItemKind, SimulatedStore, SourceError, StoreError};
use bmi_types::ByteSize;
use mounted::{Mounted, ROOMY};

#[tokio::test]
async fn the_local_store_conforms() {
    let mounted = Mounted::new(ROOMY);
    suite::run(&mounted.store).await;
    mounted.nothing_is_left();
}

#[tokio::test]
async fn stores_without_rbd_images_say_so_to_who_wants_to_import_one() {
    let mounted = Mounted::new(ROOMY);
    let simulated = SimulatedStore::new();
    let stores: [&dyn DataStore; 2] = [&mounted.store, &simulated];
    for store in stores {
        let (source, image) = ("debian".parse().unwrap(), suite::place());
        let looked = store.source_inspect(&source).await.map(drop);
        let copied = store.image_import_stored(image, &source, &suite::quiet).await;
        for refused in [looked, copied] {
            assert!(
                matches!(refused, Err(StoreError::Source(SourceError::NoneHere(kind))) if kind == store.kind()),
                "{refused:?}"
            );
        }
        assert_eq!(store.items().await.unwrap(), []);
    }
    mounted.nothing_is_left();
}

#[tokio::test]
async fn the_simulated_store_conforms() {
    let store = SimulatedStore::new();
    suite::run(&store).await;
    assert_eq!((store.images(), store.volumes()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_clone_takes_what_it_differs_by() {
    let mounted = Mounted::new(ROOMY);
    let store = &mounted.store;
    let (image, volume) = (suite::place(), suite::place());
    let size = ByteSize::new(8 << 20);
    store.image_create(image, size).await.unwrap();
    store.image_write(image, 0, vec![7; 8 << 20].into()).await.unwrap();
    store.image_seal(image, &|_, _| {}).await.unwrap();
    store.volume_clone(image, volume).await.unwrap();
    let used = async |kind, place| store.item_used(Item { kind, place }).await.unwrap().bytes();
    assert!(used(ItemKind::Image, image).await >= 8 << 20);
    assert_eq!(used(ItemKind::Volume, volume).await, 0, "a fresh clone");
    let Backing::File(path) = store.backing(volume) else { panic!("the local store has files") };
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 1 << 20], 2 << 20).unwrap();
    file.sync_all().unwrap();
    let own = used(ItemKind::Volume, volume).await;
    assert!((1 << 20..4 << 20).contains(&own), "{own}");
    assert_eq!(used(ItemKind::Volume, suite::place()).await, 0, "nothing is there");
    store.volume_remove(volume).await.unwrap();
    store.image_remove(image).await.unwrap();
}
