//! Replicas that start at once where nothing is yet.

use std::fs;

use bmi_tests::{Deployment, Postgres, STORE_SMALL, repository};

#[test]
fn four_that_start_at_once_on_an_empty_database_make_one_schema_and_one_set_of_keys() {
    let mut deployment = Deployment::start_on(STORE_SMALL, Some(Postgres::shared().database()));
    // What is left of it is the mounted store; replicas share one, and the first does not make it for them.
    deployment.control_plane_stop();
    let keys = ["master.key", "admin.token", "audit.key"]
        .map(|name| deployment.data.join("control-plane").join(name));
    keys.iter().for_each(|key| fs::remove_file(key).unwrap());
    let url = Postgres::shared().database();
    deployment.database_set(url.clone());
    let mut replicas = ["a", "b", "c", "d"].map(|name| deployment.replica(name));
    replicas.iter_mut().for_each(|replica| replica.begin());
    replicas.iter_mut().for_each(|replica| replica.listening());

    let migrations = fs::read_dir(repository().join("migrations/postgres")).unwrap().count();
    let applied = Postgres::sql(&url, "SELECT count(*) FROM __diesel_schema_migrations");
    assert_eq!(applied.trim(), migrations.to_string());
    let migrated = replicas.iter().filter(|replica| replica.log().contains("database migrated"));
    assert_eq!(migrated.count(), 1, "the others waited, and found it done");
    for (number, replica) in replicas.iter_mut().enumerate() {
        replica.assert_alive();
        replica.api.get("/readyz").expect(200);
        // With the one token: whoever lost the race to make it has read the winner's.
        replica.api.project(&format!("project-{number}"));
    }
    for replica in &replicas {
        assert_eq!(replica.api.list("/v1/projects").len(), replicas.len());
    }
}
