//! `kill -9` of a replica: the other one goes on with what it did.

use std::io::Write;
use std::time::Duration;

use bmi_tests::{Random, operation_end, sha256, until};
use serde_json::{Value, json};

use crate::world::{IMAGES, INSTANCES, Pair, import, instance};

/// What is taken over, is taken over within this on a loaded machine.
const SOON: Duration = Duration::from_secs(60);
const NODES: usize = 6;
/// Bytes of a disk that is uploaded.
const DISK: usize = 16 << 20;
/// How late a replica is killed.
const WITHIN_MS: u64 = 200;

/// The operations that a process had a lease of, from where the agent has to answer on.
fn held(pair: &Pair, pid: u32) -> Vec<String> {
    pair.rows(&format!(
        "SELECT id FROM operations WHERE lease_owner LIKE '% pid {pid} %' AND EXISTS (
             SELECT 1 FROM journal WHERE operation_id = id AND entry::json->>'entry' = 'step_started'
                 AND entry::json->>'step' = '3')
         ORDER BY id"
    ))
}

fn all_end(pair: &Pair, at: usize, operations: &[Value]) {
    for operation in operations {
        let ended = operation_end(pair.apis()[at], operation);
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
    }
}

/// Takes everything down that the tests have made, which leaves nothing.
fn assert_nothing_is_left(pair: &Pair, images: usize) {
    let api = &pair.first.api;
    for item in api.list(INSTANCES) {
        api.instance_remove("lab", item["name"].as_str().unwrap());
    }
    pair.assert_there(images, 0);
    assert_eq!(pair.rows("SELECT count(*) FROM operations WHERE lease_owner IS NOT NULL"), ["0"]);
    pair.assert_ends_are_audited_once();
}

#[test]
fn k1_operations_of_a_killed_replica_are_taken_over() {
    let mut pair = Pair::start();
    pair.fill(NODES);
    // The agent stands still: whoever works on a provision waits for it, and is in the middle.
    pair.first.agent_signal("STOP");
    let provision = |number| {
        let body = instance(&format!("instance-{number}"), number);
        pair.second.api.post(INSTANCES, &body).expect(202)
    };
    let operations: Vec<Value> = (0..NODES).map(provision).collect();
    let pid = pair.second.pid();
    until("the second replica works on some", SOON, || (!held(&pair, pid).is_empty()).then_some(()));
    pair.second.kill();
    let lost = held(&pair, pid);
    assert!(!lost.is_empty(), "it was killed in the middle");
    println!("{} of {NODES} operations were the second's", lost.len());
    pair.first.agent_signal("CONT");
    all_end(&pair, 0, &operations);
    let [by_first, by_second] = pair.finished();
    for operation in &lost {
        assert!(by_first.contains(operation) && !by_second.contains(operation), "{operation} was taken over");
    }
    let claims = pair.rows(&format!(
        "SELECT count(*) FROM operations WHERE epoch >= 2 AND id::text IN ('{}')",
        lost.join("', '")
    ));
    assert_eq!(claims, [lost.len().to_string()], "each has a second lease");
    pair.assert_there(1, NODES);
    assert_nothing_is_left(&pair, 1);
}

#[test]
fn k1_a_replica_killed_at_any_moment_leaves_nothing_half_done() {
    let mut pair = Pair::start();
    pair.fill(NODES);
    let kills = if std::env::var_os("BMI_FULL").is_some() { 12 } else { 1 };
    let mut random = Random::of_the_run();
    for round in 0..kills {
        let (delay, victim) = (random.below(WITHIN_MS), random.below(2));
        println!("round {round}: replica {victim} is killed after {delay} ms");
        let [first, second] = pair.apis();
        let mut operations = Vec::new();
        for number in 0..NODES {
            let api = if number % 2 == 0 { first } else { second };
            let name = format!("instance-{round}-{number}");
            operations.push(api.post(INSTANCES, &instance(&name, number)).expect(202));
            operations.push(api.post(IMAGES, &import(&format!("image-{round}-{number}"))).expect(202));
        }
        std::thread::sleep(Duration::from_millis(delay));
        if victim == 0 {
            pair.first.control_plane_kill();
            // The agent is the first's: without it only imports come to an end.
            let imports: Vec<Value> = operations.iter().skip(1).step_by(2).cloned().collect();
            all_end(&pair, 1, &imports);
            pair.first.control_plane_start();
        } else {
            pair.second.kill();
        }
        all_end(&pair, 0, &operations);
        if victim == 1 {
            pair.second.start();
        }
        pair.assert_there(1 + NODES * (round + 1), NODES);
        for number in 0..NODES {
            pair.second.api.instance_remove("lab", &format!("instance-{round}-{number}"));
        }
    }
    assert_nothing_is_left(&pair, 1 + NODES * kills);
    pair.first.assert_alive();
    pair.second.assert_alive();
}

/// Whoever compares the store with the database, and whoever chains the audit log, may die.
#[test]
fn leases_of_a_killed_replica_are_taken_over() {
    let mut pair = Pair::start();
    let holder = |pair: &Pair| pair.rows("SELECT holder FROM leases WHERE name = 'reconciler'").pop();
    let pids = [pair.first.control_plane_pid(), pair.second.pid()];
    let has = |pair: &Pair, pid: u32| holder(pair).is_some_and(|it| it.contains(&format!(" pid {pid} ")));
    let holds = until("somebody compares", SOON, || (0..2).find(|at| has(&pair, pids[*at])));
    if holds == 0 {
        pair.first.control_plane_kill();
    } else {
        pair.second.kill();
    }
    let other = 1 - holds;
    pair.apis()[other].project("after-the-kill");
    until("the other one compares", SOON, || has(&pair, pids[other]).then_some(()));
    until("the audit log is chained", SOON, || {
        (pair.rows("SELECT count(*) FROM audit WHERE position IS NULL") == ["0"]).then_some(())
    });
}

#[test]
fn an_upload_through_a_killed_replica_goes_on_through_the_other() {
    let mut pair = Pair::start();
    let bytes: Vec<u8> = (0..DISK).map(|at| u8::try_from(at % 251).unwrap()).collect();
    pair.first.api.post(IMAGES, &json!({"name": "disk", "virtual_size": DISK})).expect(201);
    let content = format!("{IMAGES}/disk/content");
    let head = pair.second.api.head("PATCH", &content, &[("Upload-Offset", "0")]);
    let mut stream = pair.second.api.open(format!("{head}Content-Length: {DISK}\r\n\r\n").as_bytes());
    stream.write_all(&bytes[..DISK / 2 + 77]).unwrap();
    let api = &pair.first.api;
    let offset = || -> usize {
        let answer = api.send("HEAD", &content, &[], None);
        answer.header("upload-offset").unwrap().parse().unwrap()
    };
    until("some of it is kept", SOON, || (offset() > 0).then_some(()));
    let go_on = || {
        let at = offset();
        api.send("PATCH", &content, &[("Upload-Offset", &at.to_string())], Some(&bytes[at..]))
    };
    let refused = go_on();
    assert_eq!((refused.status, refused.code().as_str()), (423, "busy"), "{}", refused.json());
    pair.second.kill();
    until("the other one takes it", SOON, || (go_on().status == 204).then_some(()));
    let seal = api.post(&format!("{IMAGES}/disk/seal"), &json!({})).expect(202);
    assert_eq!(operation_end(api, &seal)["state"], "succeeded");
    let disk = pair.first.data.join("disk.raw");
    std::fs::write(&disk, &bytes).unwrap();
    assert_eq!(api.get(&format!("{IMAGES}/disk")).expect(200)["sha256"], sha256(&disk));
}
