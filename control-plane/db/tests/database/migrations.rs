//! Migrations: replicas that start at once, old databases, and databases of another release.

use std::path::{Path, PathBuf};
use std::sync::Barrier;

use bmi_db::{After, Db, DbError, project};
use bmi_tests::{TestDatabase, on_both_databases};
use uuid::Uuid;

use super::sql::{execute, good, is_postgres, lines, new_project};

on_both_databases! {
    replicas_that_start_at_once_migrate_once,
    an_old_database_is_brought_up_to_date_with_what_it_holds,
    a_database_one_compatible_version_ahead_is_served,
    a_database_that_needs_a_newer_release_is_refused_and_left_alone,
    what_fails_leaves_the_schema_as_it_was,
}

const PROJECT: &str = "00000000-0000-7000-8000-000000000001";

fn versions(url: &str) -> Vec<String> {
    lines(url, "SELECT version AS line FROM __diesel_schema_migrations ORDER BY version")
}

/// The migrations of a database's kind, in order.
fn migrations(url: &str) -> Vec<PathBuf> {
    let kind = if is_postgres(url) { "postgres" } else { "sqlite" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(kind);
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Makes a database as an older release left it, after its first so many migrations.
fn old(url: &str, count: usize) {
    execute(
        url,
        "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    );
    for migration in migrations(url).into_iter().take(count) {
        execute(url, &std::fs::read_to_string(migration.join("up.sql")).unwrap());
        let name = migration.file_name().unwrap().to_str().unwrap().to_owned();
        let version = name.split('_').next().unwrap().replace('-', "");
        execute(url, &format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')"));
    }
}

async fn project_names(db: &Db) -> Vec<String> {
    let listed = db.system_read(|tx| project::list(tx, After { id: Uuid::nil(), limit: 10 })).await;
    good(listed).into_iter().map(|project| project.name.to_string()).collect()
}

async fn replicas_that_start_at_once_migrate_once(database: TestDatabase) {
    let (url, gate) = (&database.url, Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gate.wait();
                Db::open(url).unwrap();
            });
        }
    });
    assert_eq!(versions(url).len(), migrations(url).len());
}

async fn an_old_database_is_brought_up_to_date_with_what_it_holds(database: TestDatabase) {
    let url = &database.url;
    old(url, 4);
    execute(
        url,
        &format!(
            "INSERT INTO projects VALUES ('{PROJECT}', 'lab', 'an old one', 1, 1);
             INSERT INTO images (id, project_id, name, visibility, state, virtual_size, upload_offset,
                 created_at, version) VALUES ('{PROJECT}', '{PROJECT}', 'golden', 'private', 'open', 512, 0, 1, 1)"
        ),
    );
    let as_it_is = Db::open_as_it_is(url).map(drop).unwrap_err();
    assert!(matches!(as_it_is, DbError::Migration(_)), "it changes nothing: {as_it_is}");
    let db = Db::open(url).unwrap();
    assert_eq!(project_names(&db).await, ["lab"]);
    assert_eq!(versions(url).len(), migrations(url).len());
    assert_eq!(lines(url, "SELECT visibility AS line FROM images"), ["private"]);
    Db::open_as_it_is(url).unwrap();
}

/// While replicas are upgraded one after the other, an old one starts on the schema of a new one.
async fn a_database_one_compatible_version_ahead_is_served(database: TestDatabase) {
    let url = &database.url;
    Db::open(url).unwrap();
    execute(
        url,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000099');
         ALTER TABLE projects ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
         CREATE TABLE colours (name TEXT NOT NULL PRIMARY KEY)",
    );
    let db = Db::open(url).unwrap();
    let new = new_project("lab");
    let id = bmi_types::ProjectId::generate();
    let now = bmi_types::Timestamp::from_micros(1);
    good(db.system_write(move |tx| project::insert(tx, id, &new, now).map(drop)).await);
    assert_eq!(project_names(&db).await, ["lab"]);
    assert_eq!(lines(url, "SELECT colour AS line FROM projects"), ["grey"]);
    // But what it does not know of, it cannot copy.
    assert!(matches!(Db::open_as_it_is(url), Err(DbError::Migration(_))));
}

async fn a_database_that_needs_a_newer_release_is_refused_and_left_alone(database: TestDatabase) {
    let url = &database.url;
    old(url, migrations(url).len());
    execute(
        url,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000099');
         UPDATE compatibility SET oldest = 99;
         DELETE FROM __diesel_schema_migrations WHERE version LIKE '%000002'",
    );
    let before = versions(url);
    let error = Db::open(url).map(drop).unwrap_err();
    assert!(matches!(error, DbError::TooNew { oldest: 99, .. }), "{error}");
    assert!(matches!(Db::open_as_it_is(url), Err(DbError::TooNew { .. })));
    assert_eq!(versions(url), before, "nothing was migrated");
}

async fn what_fails_leaves_the_schema_as_it_was(database: TestDatabase) {
    let url = &database.url;
    old(url, 2);
    // The fifth cannot make its table.
    execute(url, "CREATE TABLE roles (name TEXT NOT NULL PRIMARY KEY)");
    assert!(matches!(Db::open(url), Err(DbError::Migration(_))));
    assert_eq!(versions(url).len(), 2, "the third and the fourth were undone");
    execute(url, "DROP TABLE roles");
    Db::open(url).unwrap();
    assert_eq!(versions(url).len(), migrations(url).len());
}
