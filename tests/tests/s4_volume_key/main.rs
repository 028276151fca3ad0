//! S4: what the key of one boot volume can do, as a provision made it, tried by an implementation that is not ours, operation
//! by operation.
//!
//! The administrator's key tries the same: what it is not refused, the volume's key was refused for what it is. The table
//! of both is a file that a person can review; `UPDATE_GOLDEN=1` writes it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use bmi_tests::{Ceph, repository};
use serde_json::Value;

/// Places of others', where every change must be refused.
const FOREIGN: &[&str] =
    &["golden", "unrelated", "own config", "sibling", "other", "default", "another", "a sibling", "the list"];

/// What the attacker says: an operation and its verdict a line.
fn attack(world: &Value) -> Vec<(String, String)> {
    let script = repository().join("tests/tests/s4_volume_key/attack.py");
    let mut python = Command::new("/usr/bin/python3");
    // The same names for the same things in every run.
    python.arg(script).env("PYTHONHASHSEED", "0").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.stderr(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(world.to_string().as_bytes()).unwrap();
    let ended = python.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let failed = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "the attacker gave up after\n{said}\n{failed}");
    let line =
        |line: &str| line.rsplit_once(": ").map(|(what, verdict)| (what.to_owned(), verdict.to_owned()));
    said.lines().map(|text| line(text).unwrap()).collect()
}

fn table(volume: &[(String, String)], administrator: &[(String, String)]) -> String {
    let mut table = format!("{:<72} {:<20} {}\n", "operation", "the volume's key", "the administrator's");
    for ((operation, verdict), (same, control)) in volume.iter().zip(administrator) {
        assert_eq!(operation, same);
        writeln!(table, "{operation:<72} {verdict:<20} {control}").unwrap();
    }
    table
}

#[test]
fn s4_the_key_of_a_boot_volume_reaches_that_volume_and_nothing_else() {
    let ceph = Ceph::start();
    let world = world::make(&ceph);
    // Its key may read the log of the monitors, as everybody's may.
    let log = ceph.ceph(&["log", "last", "10000", "debug", "audit"]);
    for place in ["own", "sibling", "other", "golden"] {
        for name in [&world[place]["namespace"], &world[place]["id"]] {
            assert!(!log.contains(name.as_str().unwrap()), "the log tells of {place}:\n{log}");
        }
    }
    let volume = attack(&world::held_by(&ceph, &world, world["volume_user"].as_str().unwrap()));
    let administrator = attack(&world::held_by(&ceph, &world, "admin"));
    let table = table(&volume, &administrator);
    let path = repository().join("tests/golden/s4_volume_key.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == table, "what a key may do has changed; run with UPDATE_GOLDEN=1 and review:\n{table}");
    assert!(volume.iter().map(|(operation, _)| operation).collect::<BTreeSet<_>>().len() >= 60);
    for needed in ["open", "read", "write", "discard", "take the exclusive lock"] {
        assert!(volume.contains(&(format!("own volume: {needed}"), "allowed".to_owned())), "{needed}");
    }
    // Whatever the file says: nothing of anybody else's is changed.
    let changes = [
        "write",
        "append",
        "truncate",
        "remove",
        "set xattr",
        "write omap",
        "create an image",
        "notify",
        "watch",
    ];
    let changed = volume.iter().filter(|(operation, verdict)| {
        let foreign = FOREIGN.iter().any(|place| operation.starts_with(place));
        foreign && !verdict.starts_with("refused") && changes.iter().any(|change| operation.ends_with(change))
    });
    assert_eq!(changed.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}
