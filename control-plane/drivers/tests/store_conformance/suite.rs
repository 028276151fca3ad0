//! What every data store must do. It begins with an empty store and ends with one.

use std::io::Write;
use std::time::Duration;

use bmi_drivers::store::{DataStore, ImageContent, Item, ItemKind, Place, StoreError};
use bmi_types::{ByteSize, ProjectId, TagId, VolumeId};
use bytes::Bytes;

const MIB: u64 = 1 << 20;
const SIZE: ByteSize = ByteSize::new(4 * MIB);

/// A place that nothing is at.
pub fn place() -> Place {
    Place { project: ProjectId::generate(), volume: VolumeId::generate() }
}

pub fn quiet(_done: u64, _total: u64) {}

/// A raw file of one value.
pub fn raw_file(size: usize, value: u8) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![value; size]).unwrap();
    file
}

async fn is(store: &dyn DataStore, image: Place, content: ImageContent) {
    assert_eq!(store.image_observe(image).await.unwrap(), content);
}

pub async fn run(store: &dyn DataStore) {
    // First: a file system may take its time to give back what was removed.
    usage_counts(store).await;
    an_image_is_made_written_and_sealed(store).await;
    a_sealed_image_never_changes(store).await;
    only_what_is_sealed_is_cloned(store).await;
    an_import_replaces_what_is_open(store).await;
    an_image_is_resized_until_it_is_sealed_and_then_read(store).await;
    volumes_come_and_go(store).await;
    projects_are_apart(store).await;
    tags_are_kept_gone_back_to_and_made_images_of(store).await;
    what_is_set_aside_is_gone(store).await;
}

async fn an_image_is_made_written_and_sealed(store: &dyn DataStore) {
    let image = place();
    is(store, image, ImageContent::Absent).await;
    let absent = store.image_write(image, 0, Bytes::from_static(b"x")).await;
    assert!(matches!(absent, Err(StoreError::Absent(at)) if at == image), "{absent:?}");
    let absent = store.image_seal(image, &quiet).await;
    assert!(matches!(absent, Err(StoreError::Absent(at)) if at == image), "{absent:?}");

    store.image_create(image, SIZE).await.unwrap();
    store.image_write(image, 0, vec![1; 512].into()).await.unwrap();
    store.image_create(image, SIZE).await.unwrap();
    is(store, image, ImageContent::Open { size: SIZE }).await;
    for (offset, length) in [(4 * MIB - 511, 512), (4 * MIB, 1), (u64::MAX, 1), (u64::MAX - 100, 512)] {
        let beyond = store.image_write(image, offset, vec![1; length].into()).await;
        let expected = (offset, length as u64, SIZE.bytes());
        assert!(
            matches!(beyond, Err(StoreError::OutOfRange { offset, length, size, .. }) if (offset, length, size) == expected),
            "{beyond:?}"
        );
    }
    store.image_write(image, 4 * MIB - 512, vec![1; 512].into()).await.unwrap();

    let sealed = store.image_seal(image, &quiet).await.unwrap();
    assert_eq!((sealed.size, sealed.sha256.len()), (SIZE, 64));
    is(store, image, ImageContent::Sealed { size: SIZE }).await;
    assert_eq!(store.image_seal(image, &quiet).await.unwrap(), sealed, "it is measured again");
    for _ in 0..2 {
        store.image_remove(image).await.unwrap();
        is(store, image, ImageContent::Absent).await;
    }
}

async fn a_sealed_image_never_changes(store: &dyn DataStore) {
    let image = place();
    store.image_create(image, SIZE).await.unwrap();
    let sealed = store.image_seal(image, &quiet).await.unwrap();
    let refused = [
        store.image_write(image, 0, Bytes::from_static(b"x")).await,
        store.image_create(image, SIZE).await,
        store.image_create(image, ByteSize::new(MIB)).await,
        store.image_import(image, raw_file(1 << 20, 1), &quiet).await,
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StoreError::WrongState { place, state: "sealed" }) if place == image),
            "{refused:?}"
        );
    }
    assert_eq!(store.image_seal(image, &quiet).await.unwrap(), sealed);
    store.image_remove(image).await.unwrap();
}

async fn only_what_is_sealed_is_cloned(store: &dyn DataStore) {
    let (image, volume) = (place(), place());
    let refused = store.volume_clone(image, volume).await;
    assert!(matches!(refused, Err(StoreError::Absent(at)) if at == image), "{refused:?}");
    store.image_create(image, SIZE).await.unwrap();
    let refused = store.volume_clone(image, volume).await;
    assert!(
        matches!(refused, Err(StoreError::WrongState { place, state: "not sealed" }) if place == image),
        "{refused:?}"
    );
    assert!(!store.volume_exists(volume).await.unwrap());
    store.image_seal(image, &quiet).await.unwrap();
    for _ in 0..2 {
        store.volume_clone(image, volume).await.unwrap();
        assert!(store.volume_exists(volume).await.unwrap());
    }
    // The clone lives on when its image is gone, and asking for it again finds it.
    store.image_remove(image).await.unwrap();
    store.volume_clone(image, volume).await.unwrap();
    assert!(store.volume_exists(volume).await.unwrap());
    store.volume_remove(volume).await.unwrap();
}

async fn an_import_replaces_what_is_open(store: &dyn DataStore) {
    let image = place();
    for size in [2 << 20, 1 << 20, 1 << 20] {
        store.image_import(image, raw_file(size, 5), &quiet).await.unwrap();
        is(store, image, ImageContent::Open { size: ByteSize::new(size as u64) }).await;
    }
    store.image_create(image, SIZE).await.unwrap();
    is(store, image, ImageContent::Open { size: SIZE }).await;
    for _ in 0..2 {
        store.image_remove(image).await.unwrap();
        is(store, image, ImageContent::Absent).await;
    }
}

async fn an_image_is_resized_until_it_is_sealed_and_then_read(store: &dyn DataStore) {
    let image = place();
    let absent = store.image_resize(image, SIZE).await;
    assert!(matches!(absent, Err(StoreError::Absent(at)) if at == image), "{absent:?}");
    assert!(matches!(store.image_read(image, 0, 1).await, Err(StoreError::Absent(_))));
    assert!(matches!(store.image_flatten(image, &quiet).await, Err(StoreError::Absent(_))));
    store.image_create(image, SIZE).await.unwrap();
    for size in [8 * MIB, 2 * MIB, 2 * MIB] {
        store.image_resize(image, ByteSize::new(size)).await.unwrap();
        is(store, image, ImageContent::Open { size: ByteSize::new(size) }).await;
    }
    let early = store.image_read(image, 0, 1).await;
    assert!(matches!(early, Err(StoreError::WrongState { state: "not sealed", .. })), "{early:?}");
    store.image_seal(image, &quiet).await.unwrap();
    let late = store.image_resize(image, SIZE).await;
    assert!(matches!(late, Err(StoreError::WrongState { state: "sealed", .. })), "{late:?}");
    for (offset, length, read) in
        [(0, 4096, 4096), (2 * MIB - 10, 4096, 10), (2 * MIB, 1, 0), (u64::MAX, 5, 0)]
    {
        assert_eq!(store.image_read(image, offset, length).await.unwrap().len(), read, "{offset}");
    }
    store.image_flatten(image, &quiet).await.unwrap();
    store.image_remove(image).await.unwrap();
}

async fn volumes_come_and_go(store: &dyn DataStore) {
    let volume = place();
    assert!(!store.volume_exists(volume).await.unwrap());
    store.volume_remove(volume).await.unwrap();
    for size in [1_usize << 20, 1 << 16] {
        store.volume_put(volume, vec![1; size].into()).await.unwrap();
        assert!(store.volume_exists(volume).await.unwrap());
    }
    for _ in 0..2 {
        store.volume_remove(volume).await.unwrap();
        assert!(!store.volume_exists(volume).await.unwrap());
    }
}

async fn tags_are_kept_gone_back_to_and_made_images_of(store: &dyn DataStore) {
    let (golden, boot, image) = (place(), place(), place());
    let config = Place { project: boot.project, volume: VolumeId::generate() };
    let [one, other, nowhere] = [TagId::generate(), TagId::generate(), TagId::generate()];
    let absent = store.tag_create(boot, config, one).await;
    assert!(matches!(absent, Err(StoreError::Absent(at)) if at == boot), "{absent:?}");
    let absent = store.tags(boot).await;
    assert!(matches!(absent, Err(StoreError::Absent(at)) if at == boot), "{absent:?}");

    store.image_create(golden, SIZE).await.unwrap();
    store.image_seal(golden, &quiet).await.unwrap();
    store.volume_clone(golden, boot).await.unwrap();
    store.volume_put(config, Bytes::from_static(b"x")).await.unwrap();
    store.access_ensure(boot, config).await.unwrap();
    assert_eq!(store.tags(boot).await.unwrap(), []);
    for tag in [one, other, one] {
        store.tag_create(boot, config, tag).await.unwrap();
    }
    let mut both = vec![one, other];
    both.sort();
    assert_eq!(store.tags(boot).await.unwrap(), both);

    for refused in [
        store.roll_back(boot, config, nowhere, &quiet).await,
        store.image_snapshot(boot, config, nowhere, image, &quiet).await,
    ] {
        assert!(
            matches!(refused, Err(StoreError::NoTag { place, tag }) if place == boot && tag == nowhere),
            "{refused:?}"
        );
    }
    let sealed = store.image_snapshot(boot, config, one, golden, &quiet).await;
    assert!(matches!(sealed, Err(StoreError::WrongState { state: "sealed", .. })), "{sealed:?}");
    is(store, image, ImageContent::Absent).await;

    // To the older one and to the younger one, and again: each stays.
    for tag in [one, other, one, one] {
        store.roll_back(boot, config, tag, &quiet).await.unwrap();
        assert!(store.volume_exists(boot).await.unwrap() && store.access_exists(boot).await.unwrap());
        assert_eq!(store.tags(boot).await.unwrap(), both);
    }
    for _ in 0..2 {
        store.image_snapshot(boot, config, other, image, &quiet).await.unwrap();
        is(store, image, ImageContent::Open { size: SIZE }).await;
    }
    store.image_seal(image, &quiet).await.unwrap();
    for _ in 0..2 {
        store.tag_remove(boot, config, other).await.unwrap();
        assert_eq!(store.tags(boot).await.unwrap(), [one]);
    }
    let of_boot = |item: &Item| item.place == boot;
    assert_eq!(
        store.items().await.unwrap().iter().filter(|item| of_boot(item)).count(),
        1,
        "tags are its own"
    );

    // With a volume go its tags; an image that was made of one stays.
    for volume in [boot, config] {
        store.volume_remove(volume).await.unwrap();
    }
    assert!(!store.items().await.unwrap().iter().any(of_boot));
    is(store, image, ImageContent::Sealed { size: SIZE }).await;
    for image in [image, golden] {
        store.image_remove(image).await.unwrap();
    }
}

async fn projects_are_apart(store: &dyn DataStore) {
    let (one, other) = (place(), place());
    let same_id_elsewhere = Place { project: other.project, volume: one.volume };
    store.image_create(one, SIZE).await.unwrap();
    store.volume_put(one, Bytes::from_static(b"x")).await.unwrap();
    is(store, same_id_elsewhere, ImageContent::Absent).await;
    assert!(!store.volume_exists(same_id_elsewhere).await.unwrap());
    store.image_remove(same_id_elsewhere).await.unwrap();
    store.volume_remove(same_id_elsewhere).await.unwrap();
    is(store, one, ImageContent::Open { size: SIZE }).await;
    assert!(store.volume_exists(one).await.unwrap());
    assert_ne!(store.backing(one), store.backing(same_id_elsewhere));
    store.image_remove(one).await.unwrap();
    store.volume_remove(one).await.unwrap();
}

async fn what_is_set_aside_is_gone(store: &dyn DataStore) {
    let (open, golden, volume, kept) = (place(), place(), place(), place());
    assert_eq!(store.items().await.unwrap(), [], "what was removed is not there");
    store.image_create(open, SIZE).await.unwrap();
    store.image_create(golden, SIZE).await.unwrap();
    store.image_seal(golden, &quiet).await.unwrap();
    for volume in [volume, kept] {
        store.volume_put(volume, Bytes::from_static(b"x")).await.unwrap();
    }
    let image = |place| Item { kind: ItemKind::Image, place };
    let of_volume = |place| Item { kind: ItemKind::Volume, place };
    let mut wanted = vec![image(open), image(golden), of_volume(volume), of_volume(kept)];
    let mut items = store.items().await.unwrap();
    items.sort();
    wanted.sort();
    assert_eq!(items, wanted);
    for item in [image(open), image(golden), of_volume(volume)] {
        for _ in 0..2 {
            store.set_aside(item).await.unwrap();
        }
    }
    is(store, open, ImageContent::Absent).await;
    is(store, golden, ImageContent::Absent).await;
    assert!(!store.volume_exists(volume).await.unwrap());
    assert_eq!(store.items().await.unwrap(), [of_volume(kept)]);
    assert_eq!(store.aside_expire(Duration::from_secs(3600)).await.unwrap(), 0, "it is kept for a while");
    assert_eq!(store.aside_expire(Duration::ZERO).await.unwrap(), 3);
    assert_eq!(store.aside_expire(Duration::ZERO).await.unwrap(), 0);
    assert!(store.volume_exists(kept).await.unwrap());
    store.volume_remove(kept).await.unwrap();
}

async fn usage_counts(store: &dyn DataStore) {
    let before = store.usage().await.unwrap();
    assert!(before.used <= before.capacity);
    let volume = place();
    store.volume_put(volume, vec![9; 8 << 20].into()).await.unwrap();
    // A cluster counts from time to time.
    let mut with = store.usage().await.unwrap();
    for _ in 0..60 {
        if with.used.bytes() >= before.used.bytes() + 7 * MIB {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        with = store.usage().await.unwrap();
    }
    // What was removed before may be counted out only now.
    assert!(with.used.bytes() >= before.used.bytes() + 7 * MIB, "{before:?} {with:?}");
    assert!(with.used <= with.capacity, "{with:?}");
    store.volume_remove(volume).await.unwrap();
}
