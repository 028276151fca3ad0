//! PostgreSQL is stopped and started again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bmi_tests::{Answer, Api, Durability, Postgres, operation_end, until};
use serde_json::json;

use crate::world::{INSTANCES, Pair, instance};

/// Replicas find their way back within this on a loaded machine.
const SOON: Duration = Duration::from_secs(60);
/// Who makes projects meanwhile.
const WRITERS: usize = 4;

fn assert_unavailable(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{what}: {}", answer.json());
    assert!(answer.header("retry-after").is_some(), "{what}");
}

/// Makes projects until it is told to stop; gives the names of those that it was told are made.
fn write(api: &Api, writer: usize, stop: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("project-{writer}-{number}");
        let answer = api.post("/v1/projects", &json!({"name": name}));
        if answer.status == 201 {
            made.push(name);
        } else {
            assert_unavailable(&answer, &name);
        }
    }
    made
}

#[test]
fn k2_a_database_that_goes_and_comes_back_loses_nothing() {
    let mut server = Postgres::start(Durability::None);
    let mut pair = Pair::start_on(&server);
    pair.fill(2);
    // One operation is under way: its agent does not answer yet.
    pair.first.agent_signal("STOP");
    let operation = pair.second.api.post(INSTANCES, &instance("before", 0)).expect(202);
    let exposing = "SELECT count(*) FROM journal WHERE entry::json->>'entry' = 'step_started' \
                    AND entry::json->>'step' = '3'";
    until("the operation waits for its agent", SOON, || (pair.rows(exposing) != ["0"]).then_some(()));

    let (stop, apis) = (AtomicBool::new(false), pair.apis());
    let made: Vec<String> = std::thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(apis[writer % 2], writer, stop))).collect();
        // (The writers must be told to stop also when something here fails.)
        let _told = Told(stop);
        std::thread::sleep(Duration::from_millis(500));
        server.stop();
        for api in apis {
            assert_eq!(api.get("/healthz").status, 200, "the process lives");
            assert_unavailable(&api.get("/readyz"), "/readyz");
            assert_unavailable(&api.get("/v1/projects"), "a read");
            assert_unavailable(&api.post("/v1/projects", &json!({"name": "never"})), "a write");
        }
        server.resume();
        for api in apis {
            until("it is ready again", SOON, || (api.get("/readyz").status == 200).then_some(()));
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    pair.first.assert_alive();
    pair.second.assert_alive();

    // Both serve and work: what was under way ends, and what is new too.
    pair.first.agent_signal("CONT");
    let ended = operation_end(&pair.second.api, &operation);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let operation = pair.first.api.post(INSTANCES, &instance("after", 1)).expect(202);
    assert_eq!(operation_end(&pair.second.api, &operation)["state"], "succeeded");
    pair.assert_there(1, 2);
    // What was told to be made is there.
    let projects: Vec<String> = pair.rows("SELECT name FROM projects");
    println!("{} projects were made around the outage", made.len());
    assert!(made.iter().all(|name| projects.contains(name)));
    assert!(!projects.contains(&"never".to_owned()));
    until("the audit log is chained", SOON, || {
        (pair.rows("SELECT count(*) FROM audit WHERE position IS NULL") == ["0"]).then_some(())
    });
    pair.first.cli("lab").run(&["audit", "verify"]).ok();
    // The lock that keeps others from working on the whole is held again.
    until("the database is held again", SOON, || {
        let held =
            pair.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'");
        (held == ["2"]).then_some(())
    });
    let other = pair.first.replica("third").command(&["rekey"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && said.contains("stop every replica first"), "{said}");
}

/// Tells the writers to stop when it is dropped.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
