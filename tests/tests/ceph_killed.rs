//! A control plane that is killed in the middle of long work on a store in Ceph: importing, flattening,
//! removing, going back to a tag, making an image of one. What was there is there, what was begun ends when
//! it is asked for again, and nothing is left. And one that loses interest in its work and lives on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bmi_drivers::store::{DataStore, ImageContent, Place};
use bmi_tests::{Ceph, Deployment, Random, WaitingStore, sha256, until};
use bmi_types::{ByteSize, ProjectId, TagId, VolumeId};
use serde_json::Value;

/// Of the images that are worked on.
const SIZE: usize = 96 << 20;

/// How much an import copies until the store notes for the first time how far it is, and the size of what is
/// imported.
const NOTED: u64 = 256 << 20;
const IMPORTED: u64 = 640 << 20;

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

/// How far a line of progress says that something is, in bytes.
fn done(line: &str) -> Option<u64> {
    line.split_once(' ')?.0.parse().ok()
}

/// Begins something and kills who does it when that says that it is further than so many bytes. Gives whether
/// it was in time.
fn kill_beyond(ceph: &Ceph, words: &[&str], bytes: u64) -> bool {
    let mut child = verb(ceph, words).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| done(&line).is_some_and(|done| done > bytes)), "it ended before");
    child.kill().unwrap();
    child.wait().unwrap();
    said.last().is_none_or(|line| line != "done")
}

/// Does it to its end; gives what was said.
fn complete(ceph: &Ceph, words: &[&str]) -> String {
    let output = verb(ceph, words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
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
fn k1_an_import_that_is_killed_goes_on_from_where_it_noted_that_it_was() {
    let ceph = cluster();
    let store = WaitingStore::open(ceph);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(IMPORTED).unwrap();
    // A little in each object, and where it is killed more, which takes a while.
    for at in (0..IMPORTED).step_by(4 << 20) {
        let length = if at < NOTED { 512 } else { 1 << 20 };
        let bytes = at.to_le_bytes().map(|byte| byte | 1).repeat(length / 8);
        file.as_file().write_all_at(&bytes, at).unwrap();
    }
    for _ in 0..kills() {
        let image = place();
        let at = format!("{}/{}", image.project, image.volume);
        let import = ["image-import", at.as_str(), file.path().to_str().unwrap()];
        assert!(kill_beyond(ceph, &import, NOTED), "it had ended before it was killed");
        let observed = store.ask(async |store| store.image_observe(image).await.unwrap());
        assert_eq!(observed, ImageContent::Absent, "half an image is none");
        let said = complete(ceph, &import);
        let first = said.lines().find_map(done).unwrap();
        assert!((NOTED..IMPORTED).contains(&first), "it went on from {first}");
        let sealed = store.ask(async |store| store.image_seal(image, &|_, _| {}).await.unwrap());
        assert_eq!((sealed.size.bytes(), sealed.sha256), (IMPORTED, sha256(file.path())));
        complete(ceph, &["image-remove", &at]);
        assert_eq!(left(ceph, &store, &[image]), [] as [String; 0]);
    }
}

/// Whether somebody empties the trash of a namespace.
fn is_emptied(ceph: &Ceph, space: &str) -> bool {
    let lock = ceph.rados(&["--pool", "bmi", "--namespace", space, "lock", "info", "bmi.trash", "bmi"]);
    let lock: Value = serde_json::from_str(&lock).unwrap();
    !lock["lockers"].as_array().unwrap().is_empty()
}

/// Whoever removes an image next while a forgotten thread still does has librbd end the whole process.
#[test]
fn a_removal_that_nobody_waits_for_stops_and_only_then_may_somebody_else_begin() {
    let ceph = cluster();
    let (store, image) = (WaitingStore::open(ceph), place());
    let (at, space) = (format!("{}/{}", image.project, image.volume), image.project.to_string());
    store.ask(async |store| store.image_create(image, ByteSize::new(1 << 20)).await.unwrap());
    // One that does not know what it has: each object is asked for, which takes some seconds.
    let large = format!("bmi/{space}/image-{}", VolumeId::generate());
    ceph.rbd(&["create", &large, "--size", "64G", "--image-feature", "layering,exclusive-lock"]);
    ceph.rbd(&["trash", "mv", &large]);
    let stopped = store.ask(async |store| {
        let begun = async {
            while !is_emptied(ceph, &space) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            done = store.reclaim() => Some(done),
            () = begun => None,
        }
    });
    assert!(stopped.is_none(), "it had ended before it could be stopped: {stopped:?}");
    until("the lock is given back", Duration::from_secs(10), || (!is_emptied(ceph, &space)).then_some(()));
    let there = ceph.images(&space);
    assert!(there.iter().any(|name| name.starts_with("trash: ")), "it went on to its end: {there:?}");
    complete(ceph, &["image-remove", &at]);
    assert_eq!(left(ceph, &store, &[image]), [] as [String; 0]);
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
