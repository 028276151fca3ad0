//! A control plane that is killed in the middle of long work on a store in Ceph: flattening, removing, going back to a tag,
//! making an image of one. What was there is there, what was begun ends when it is asked for again, and nothing is left.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bmi_drivers::store::{DataStore, Place};
use bmi_tests::{Ceph, Deployment, Random, WaitingStore};
use bmi_types::{ByteSize, ProjectId, TagId, VolumeId};

/// Of the images that are worked on.
const SIZE: usize = 96 << 20;

/// How often each work is killed, and in a full run.
const KILLS: u64 = 1;
const KILLS_FULL: u64 = 10;

fn kills() -> u64 {
    if std::env::var_os("BMI_FULL").is_some() { KILLS_FULL } else { KILLS }
}

fn place() -> Place {
    Place { project: ProjectId::generate(), volume: VolumeId::generate() }
}

/// A cluster that forgets the dead soon.
fn cluster() -> &'static Ceph {
    let ceph = Ceph::shared();
    ceph.ceph(&["config", "set", "osd", "osd_client_watch_timeout", "5"]);
    ceph
}

fn verb(ceph: &Ceph, words: &[&str]) -> Command {
    let mut command = Command::new(Deployment::built("bmi-store-verb"));
    command.arg(ceph.conf()).arg(ceph.control_plane_keyring("bmi")).args(words);
    command.stdout(Stdio::piped());
    command
}

/// Begins something and kills who does it, either at a moment after so many lines of progress or so long after the beginning.
/// Gives whether it was in time.
fn kill(ceph: &Ceph, words: &[&str], lines: u64, pause: Duration) -> bool {
    let mut child = verb(ceph, words).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("begun"));
    let mut ended = false;
    for _ in 0..lines {
        ended |= said.next().is_none_or(|line| line == "done");
    }
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    ended |= said.last().is_some_and(|line| line == "done");
    !ended
}

/// Does it to its end.
fn complete(ceph: &Ceph, words: &[&str]) {
    let output = verb(ceph, words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes in which no object is like another, and none is zero.
fn noise() -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(state.to_le_bytes().map(|byte| byte | 1).repeat(64));
    }
    bytes
}

/// A golden image of noise.
fn golden(store: &WaitingStore, content: &[u8]) -> Place {
    let image = place();
    store.ask(async |store| {
        store.image_create(image, ByteSize::new(SIZE as u64)).await.unwrap();
        for (index, piece) in content.chunks(32 << 20).enumerate() {
            store.image_write(image, (index * (32 << 20)) as u64, piece.to_vec().into()).await.unwrap();
        }
        store.image_seal(image, &|_, _| {}).await.unwrap();
    });
    image
}

/// Compares all of an image.
fn is(ceph: &Ceph, name: &str, expected: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content");
    ceph.rbd(&["export", "--no-progress", name, file.to_str().unwrap()]);
    let found = std::fs::read(file).unwrap();
    assert_eq!(found.len(), expected.len());
    let differ: Vec<String> = found
        .chunks(1 << 20)
        .zip(expected.chunks(1 << 20))
        .enumerate()
        .filter(|(_, (found, expected))| found != expected)
        .map(|(number, (found, _))| format!("MiB {number} begins with {:?}", &found[..8]))
        .collect();
    assert_eq!(differ, [] as [String; 0], "{name}");
}

/// Takes everything out of the trash; gives what is left in some namespaces.
fn left(ceph: &Ceph, store: &WaitingStore, places: &[Place]) -> Vec<String> {
    // A dead process is seen by Ceph for some seconds, and what it had of the trash for half a minute.
    for _ in 0..60 {
        store.ask(async |store| drop(store.reclaim().await));
        let mut found = Vec::new();
        for place in places {
            let space = &place.project.to_string();
            found.extend(ceph.images(space));
            let objects = ceph.rados(&["--pool", "bmi", "--namespace", space, "ls"]);
            let of_images =
                |name: &&str| ["rbd_data.", "rbd_header.", "rbd_id."].iter().any(|is| name.starts_with(is));
            found.extend(objects.lines().filter(of_images).map(|name| format!("{space}: {name}")));
        }
        if found.is_empty() || !found.iter().any(|name| name.contains("trash: ") || name.contains("rbd_")) {
            return found;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    ceph.ceph(&["status"]).lines().map(str::to_owned).collect()
}

#[test]
fn k1_a_flatten_that_is_killed_loses_nothing_and_ends_when_it_is_asked_for_again() {
    let (ceph, mut random) = (cluster(), Random::of_the_run());
    let store = WaitingStore::open(ceph);
    let bytes = noise();
    let (parent, image) = (golden(&store, &bytes), place());
    ceph.rbd(&["namespace", "create", &format!("bmi/{}", image.project)]);
    let name = |place: Place| format!("bmi/{}/image-{}", place.project, place.volume);
    let from = format!("{}@golden", name(parent));
    let clone = || ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &from, &name(image)]);
    clone();
    let at = format!("{}/{}", image.project, image.volume);
    let mut in_time = 0;
    for _ in 0..=kills() {
        // One may have ended before it was killed: then there is nothing to flatten any more.
        if !ceph.rbd(&["info", &name(image)]).contains("parent: ") {
            ceph.rbd(&["rm", "--no-progress", &name(image)]);
            clone();
        }
        let lines = 1 + random.below(6);
        in_time += u64::from(kill(ceph, &["image-flatten", &at], lines, Duration::ZERO));
        is(ceph, &name(image), &bytes);
    }
    assert!(in_time > 0, "every flatten had ended before it was killed");
    complete(ceph, &["image-flatten", &at]);
    assert!(!ceph.rbd(&["info", &name(image)]).contains("parent: "));
    is(ceph, &name(image), &bytes);
    is(ceph, &from, &bytes);
    for image in [image, parent] {
        complete(ceph, &["image-remove", &format!("{}/{}", image.project, image.volume)]);
    }
    assert_eq!(left(ceph, &store, &[image, parent]), [] as [String; 0]);
}

#[test]
fn k1_a_removal_that_is_killed_leaves_nothing_when_it_is_asked_for_again() {
    let (ceph, mut random) = (cluster(), Random::of_the_run());
    let store = WaitingStore::open(ceph);
    let bytes = noise();
    for _ in 0..kills() {
        let (image, boot) = (golden(&store, &bytes), place());
        let config = Place { project: boot.project, volume: VolumeId::generate() };
        store.ask(async |store| {
            store.volume_clone(image, boot).await.unwrap();
            store.volume_put(config, vec![1; 65536].into()).await.unwrap();
            store.access_ensure(boot, config).await.unwrap();
            store.tag_create(boot, config, TagId::generate()).await.unwrap();
        });
        // The image first: it is retired, and its last clone takes it along.
        for (verb, at) in [("image-remove", image), ("volume-remove", boot), ("volume-remove", config)] {
            let at = format!("{}/{}", at.project, at.volume);
            let pause = Duration::from_millis(random.below(400));
            kill(ceph, &[verb, &at], 0, pause);
            complete(ceph, &[verb, &at]);
        }
        assert_eq!(left(ceph, &store, &[image, boot]), [] as [String; 0]);
        assert_eq!(ceph.users("bmi-").len(), 0);
    }
}

#[test]
fn k1_going_back_to_a_tag_and_making_an_image_of_it_go_on_after_a_kill() {
    let (ceph, mut random) = (cluster(), Random::of_the_run());
    let store = WaitingStore::open(ceph);
    let bytes = noise();
    let (image, boot, made, tag) = (golden(&store, &bytes), place(), place(), TagId::generate());
    let config = Place { project: boot.project, volume: VolumeId::generate() };
    store.ask(async |store| {
        store.volume_clone(image, boot).await.unwrap();
        store.volume_put(config, vec![1; 65536].into()).await.unwrap();
        store.access_ensure(boot, config).await.unwrap();
        store.tag_create(boot, config, tag).await.unwrap();
    });
    let text = |place: Place| format!("{}/{}", place.project, place.volume);
    let (at, beside, tagged, to) = (text(boot), text(config), tag.to_string(), text(made));
    let volume = format!("bmi/{}/volume-{}", boot.project, boot.volume);
    let back = ["roll-back", &at, &beside, &tagged];
    for _ in 0..kills() {
        let write = ["bench", "--io-type", "write", "--io-size", "64K", "--io-total", "4M", &volume];
        ceph.rbd(&write);
        kill(ceph, &back, 0, Duration::from_millis(random.below(1500)));
        complete(ceph, &back);
        is(ceph, &volume, &bytes);
        let of_project = ceph.images(&boot.project.to_string());
        // What was begun and is not wanted waits in the trash until that is emptied.
        let of_volume: Vec<&String> = of_project.iter().filter(|name| !name.starts_with("trash: ")).collect();
        assert!(of_volume.len() <= 3, "the volume, what has the tag, the config volume: {of_volume:?}");
    }
    let snapshot = ["image-snapshot", &at, &beside, &tagged, &to];
    for _ in 0..kills() {
        kill(ceph, &snapshot, random.below(20), Duration::ZERO);
    }
    complete(ceph, &snapshot);
    let name = format!("bmi/{}/image-{}", made.project, made.volume);
    assert!(!ceph.rbd(&["info", &name]).contains("parent: "));
    is(ceph, &name, &bytes);
    for (verb, at) in
        [("volume-remove", boot), ("volume-remove", config), ("image-remove", made), ("image-remove", image)]
    {
        complete(ceph, &[verb, &text(at)]);
    }
    assert_eq!(left(ceph, &store, &[image, boot, made]), [] as [String; 0]);
}
