//! Replicas one version apart: what a newer release does to the database while this one serves it.
//!
//! There is no second release to be started here. What it would do to the schema is done by hand: its migration is added
//! to those that the database has, and the oldest release that it works with is named.

use std::fs;

use bmi_tests::{Postgres, Replica, operation_end, repository};

use crate::world::{IMAGES, INSTANCES, Pair, import, instance};

/// The number of this release: that of its newest migration.
fn release() -> i64 {
    let names = fs::read_dir(repository().join("migrations/postgres")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers = names.map(|name| name.split(['-', '_']).nth(3).unwrap().parse::<i64>().unwrap());
    numbers.max().unwrap()
}

/// What the next release's migration does: it adds what this one leaves alone.
fn next_release_migrates(url: &str) {
    let next = release() + 1;
    let _ = Postgres::sql(
        url,
        &format!(
            "BEGIN;
             ALTER TABLE projects ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
             ALTER TABLE operations ADD COLUMN urgency BIGINT NOT NULL DEFAULT 0;
             CREATE TABLE colours (name TEXT NOT NULL PRIMARY KEY);
             INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101{next:06}');
             COMMIT"
        ),
    );
}

fn refusal(replica: &Replica) -> String {
    let ran = replica.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    said
}

#[test]
fn an_older_replica_goes_on_beside_a_newer_one_until_the_database_needs_a_newer_one() {
    let mut pair = Pair::start();
    pair.fill(2);
    let url = pair.first.database.clone().unwrap();
    let under_way = pair.second.api.post(INSTANCES, &instance("before", 0)).expect(202);
    next_release_migrates(&url);
    // Both go on with the connections that they have, and with new ones.
    for (number, api) in pair.apis().into_iter().enumerate() {
        api.project(&format!("after-{number}"));
        let queued = api.post(IMAGES, &import(&format!("image-{number}"))).expect(202);
        assert_eq!(operation_end(api, &queued)["state"], "succeeded");
    }
    assert_eq!(operation_end(&pair.first.api, &under_way)["state"], "succeeded");
    let _ = Postgres::sql(
        &url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'bmi-control-plane' AND datname = current_database()",
    );
    // One that is started again finds a newer schema that it can work with.
    pair.second.stop();
    pair.second.start();
    let after = pair.second.api.post(INSTANCES, &instance("after", 1)).expect(202);
    assert_eq!(operation_end(&pair.second.api, &after)["state"], "succeeded");
    pair.assert_there(3, 2);
    assert_eq!(pair.rows("SELECT DISTINCT colour FROM projects"), ["grey"]);

    // A release that this one cannot work beside says so: this one does not start any more.
    pair.second.stop();
    let next = release() + 1;
    let _ = Postgres::sql(&url, &format!("UPDATE compatibility SET oldest = {next}"));
    let wanted = format!(
        "the database needs release {next} or newer (counted by migrations), and this is release {}",
        release()
    );
    let said = refusal(&pair.second);
    assert!(said.contains(&wanted), "{said}");
    // Nor does one go on that serves: it would write what the newer one does not understand.
    assert_eq!(pair.first.control_plane_ends(), Some(1));
    let log = pair.first.control_plane_log();
    assert!(log.lines().last().unwrap().contains(&wanted), "{log}");
}
