//! The local store's blocks: clones share them, and running out of them leaves nothing half.

use bmi_drivers::store::{DataStore, ImageContent, StoreError};
use bmi_types::ByteSize;

use crate::files::noise;
use crate::mounted::{Mounted, ROOMY, SMALL};
use crate::suite::place;
use crate::suite::{quiet, raw_file};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_clone_costs_no_more_than_its_bookkeeping() {
    let mounted = Mounted::new(ROOMY);
    let (store, image) = (&mounted.store, place());
    let size = 64 * MIB;
    store.image_create(image, ByteSize::new(size)).await.unwrap();
    store.image_write(image, 0, noise(64 << 20).into()).await.unwrap();
    store.image_seal(image, &quiet).await.unwrap();
    let before = store.usage().await.unwrap().used.bytes();
    assert!(before >= size);
    let volumes: Vec<_> = (0..4).map(|_| place()).collect();
    for volume in &volumes {
        store.volume_clone(image, *volume).await.unwrap();
        assert_eq!(std::fs::metadata(mounted.volume_file(*volume, "raw")).unwrap().len(), size);
    }
    let grown = store.usage().await.unwrap().used.bytes() - before;
    assert!(grown < MIB, "4 clones of 64 MiB took {grown} bytes");
}

#[tokio::test]
async fn a_full_store_says_so_and_keeps_nothing_half() {
    let mounted = Mounted::new(SMALL);
    let (store, filler) = (&mounted.store, place());
    store.image_create(filler, ByteSize::new(1 << 30)).await.unwrap();
    let piece: bytes::Bytes = noise(8 << 20).into();
    let mut offset = 0;
    let full = loop {
        match store.image_write(filler, offset, piece.clone()).await {
            Ok(()) => offset += piece.len() as u64,
            Err(error) => break error,
        }
        assert!(offset < SMALL.bytes(), "more was written than there is room for");
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
    assert!(full.to_string().starts_with("the store is full: cannot write"), "{full}");
    assert_eq!(
        store.image_observe(filler).await.unwrap(),
        ImageContent::Open { size: ByteSize::new(1 << 30) }
    );

    let (image, volume) = (place(), place());
    let refused = [
        store.image_import(image, raw_file(16 << 20, 1), &quiet).await,
        store.volume_put(volume, vec![1; 16 << 20].into()).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    }
    assert_eq!(store.image_observe(image).await.unwrap(), ImageContent::Absent);
    assert!(!store.volume_exists(volume).await.unwrap());
    let files: Vec<_> = mounted.files().into_iter().filter(|path| path.is_file()).collect();
    assert_eq!(files, [mounted.image_file(filler, "part")]);

    // A volume that was there before its replacement did not fit is there still.
    store.image_remove(filler).await.unwrap();
    store.volume_put(volume, vec![2; 4096].into()).await.unwrap();
    let refused = store.volume_put(volume, vec![1; 320 << 20].into()).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(std::fs::read(mounted.volume_file(volume, "raw")).unwrap(), vec![2; 4096]);
    store.volume_remove(volume).await.unwrap();
    store.image_remove(image).await.unwrap();
    // What failed may have left its project's folder, and nothing in it.
    assert!(mounted.files().iter().all(|path| path.is_dir()), "{:?}", mounted.files());
}
