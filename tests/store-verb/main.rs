//! One verb of the `ceph` store in a process of its own, for a test that kills it: `store-verb CONF KEYRING VERB PLACE…`, where
//! a place is `PROJECT/VOLUME`. Prints a line for each progress that is told, and `done`.
//!
//! A store that still has a dead client's marks says so for a while; it is asked again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a part of a test"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_drivers::image::Converter;
use bmi_drivers::store::ceph::{CephSettings, CephStore};
use bmi_drivers::store::{DataStore, Place, StoreError};
use bmi_tests::MemoryRecords;
use bmi_types::chain;

/// How long what a dead process left may be in the way: Ceph forgets it 30 s after its end, at the latest.
const PATIENCE: Duration = Duration::from_secs(120);

fn place(text: &str) -> Place {
    let (project, volume) = text.split_once('/').unwrap();
    Place { project: project.parse().unwrap(), volume: volume.parse().unwrap() }
}

async fn perform(store: &CephStore, verb: &str, rest: &[String]) -> Result<(), StoreError> {
    let first = place(&rest[0]);
    let progress = |done: u64, total: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{done} {total}").unwrap();
        out.flush().unwrap();
    };
    match verb {
        "image-flatten" => store.image_flatten(first, &progress).await,
        "image-import" => store.image_import(first, File::open(&rest[1]).unwrap(), &progress).await,
        "image-remove" => store.image_remove(first).await,
        "volume-remove" => store.volume_remove(first).await,
        "roll-back" => store.roll_back(first, place(&rest[1]), rest[2].parse().unwrap(), &progress).await,
        "image-snapshot" => {
            let (config, tag, image) = (place(&rest[1]), rest[2].parse().unwrap(), place(&rest[3]));
            store.image_snapshot(first, config, tag, image, &progress).await
        }
        other => panic!("there is no verb {other}"),
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let staging = tempfile::tempdir().unwrap();
    let settings = CephSettings {
        conf: PathBuf::from(&arguments[0]),
        user: "bmi".to_owned(),
        keyring: Some(PathBuf::from(&arguments[1])),
        pool: "bmi".to_owned(),
        import_namespace: None,
        broker_mon_host: None,
        staging: staging.path().to_owned(),
    };
    let store = CephStore::open(settings, Converter::nothing(), Arc::new(MemoryRecords::default()));
    let store = store.await.unwrap();
    println!("begun");
    let begun = Instant::now();
    while let Err(error) = perform(&store, &arguments[2], &arguments[3..]).await {
        assert!(begun.elapsed() < PATIENCE, "{}", chain(&error));
        eprintln!("not yet: {}", chain(&error));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("done");
}
