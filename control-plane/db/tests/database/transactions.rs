//! Transactions: one writer at a time, one state for a reader, and connections that break.

use std::time::{Duration, Instant};

use bmi_db::{After, Db, DbError, project, role};
use bmi_tests::{Durability, Postgres, TestDatabase, on_both_databases};
use bmi_types::{ProjectId, Timestamp};
use uuid::Uuid;

use super::sql::{execute, good, is_postgres, new_project};

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const ALL: After = After { id: Uuid::nil(), limit: 1000 };

on_both_databases! {
    what_was_read_before_a_write_still_holds_when_it_is_committed,
    what_only_reads_sees_one_state,
    what_fails_or_panics_leaves_nothing_and_its_connection_is_good_or_gone,
    a_writer_that_takes_too_long_is_not_waited_for_without_end,
    a_connection_that_broke_is_not_used_again,
}

fn insert(tx: &mut bmi_db::Tx<'_>, name: &str) -> Result<(), DbError> {
    let new = new_project(name);
    project::insert(tx, ProjectId::generate(), &new, NOW).map(drop)
}

async fn count(db: &Db) -> usize {
    good(db.system_read(|tx| project::list(tx, ALL)).await).len()
}

async fn what_was_read_before_a_write_still_holds_when_it_is_committed(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let db = db.clone();
            tokio::spawn(async move {
                db.system_write(move |tx| {
                    if project::list(tx, ALL)?.len() >= 10 {
                        return Ok(false);
                    }
                    // Time for another one to come in between, if it could.
                    std::thread::sleep(Duration::from_millis(2));
                    insert(tx, &format!("project-{number}"))?;
                    Ok(true)
                })
                .await
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(good(task.await.unwrap()));
    }
    assert_eq!((made, count(&db).await), (10, 10), "none failed, and none was one too many");
}

async fn what_only_reads_sees_one_state(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let (seen, written) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let reader = {
        let db = db.clone();
        tokio::spawn(async move {
            db.system_read(move |tx| {
                let before = project::list(tx, ALL)?.len();
                seen.0.send(()).unwrap();
                written.1.recv().unwrap();
                Ok::<_, DbError>((before, project::list(tx, ALL)?.len(), role::policy_version(tx)?))
            })
            .await
        })
    };
    tokio::task::spawn_blocking(move || seen.1.recv().unwrap()).await.unwrap();
    good(db.system_write(|tx| insert(tx, "lab").and_then(|()| role::policy_changed(tx))).await);
    written.0.send(()).unwrap();
    assert_eq!(good(reader.await.unwrap()), (0, 0, 1));
    assert_eq!(count(&db).await, 1);
}

async fn what_fails_or_panics_leaves_nothing_and_its_connection_is_good_or_gone(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    for round in 0..40 {
        let failed: Result<(), DbError> = db
            .system_write(move |tx| {
                insert(tx, "lab")?;
                assert!(round % 2 == 0, "a defect");
                Err(DbError::Conflict("not this time".to_owned()))
            })
            .await;
        assert!(failed.is_err());
    }
    assert_eq!(count(&db).await, 0);
    // The same name twice is a conflict that the caller is told of, and the next transaction is a good one.
    good(db.system_write(|tx| insert(tx, "lab")).await);
    let twice = db.system_write(|tx| insert(tx, "lab")).await;
    assert!(matches!(twice, Err(DbError::Conflict(_))), "{twice:?}");
    good(db.system_write(|tx| insert(tx, "other")).await);
    assert_eq!(count(&db).await, 2);
}

async fn a_writer_that_takes_too_long_is_not_waited_for_without_end(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let (begun, slow) = (std::sync::mpsc::channel(), db.clone());
    let slow = tokio::spawn(async move {
        slow.system_write(move |tx| {
            insert(tx, "slow")?;
            begun.0.send(()).unwrap();
            std::thread::sleep(Duration::from_secs(12));
            Ok::<_, DbError>(())
        })
        .await
    });
    tokio::task::spawn_blocking(move || begun.1.recv().unwrap()).await.unwrap();
    let began = Instant::now();
    let waited = db.system_write(|tx| insert(tx, "quick")).await;
    assert!(matches!(waited, Err(DbError::Unavailable(_))), "{waited:?}");
    assert!((9..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(count(&db).await, 0, "who reads does not wait for who writes");
    good(slow.await.unwrap());
    good(db.system_write(|tx| insert(tx, "quick")).await);
}

/// Connections of SQLite do not break; those of PostgreSQL are thrown out here, idle and in a transaction.
async fn a_connection_that_broke_is_not_used_again(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    if !is_postgres(&database.url) {
        return;
    }
    let url = database.url.clone();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..5 {
        execute(&url, terminate);
        assert_eq!(count(&db).await, 0, "an idle one is replaced before it is used");
    }
    let within = url.clone();
    let broken = db
        .system_write(move |tx| {
            insert(tx, "lab")?;
            execute(&within, terminate);
            insert(tx, "other")
        })
        .await;
    assert!(matches!(broken, Err(DbError::Unavailable(_))), "{broken:?}");
    assert_eq!(count(&db).await, 0);
    good(db.system_write(|tx| insert(tx, "lab")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_cannot_write_in_postgresql() {
    let database = TestDatabase::postgres();
    let db = Db::open(&database.url).unwrap();
    let wrote = db.system_read(|tx| insert(tx, "lab")).await;
    assert!(wrote.is_err());
    assert_eq!(count(&db).await, 0);
}

/// A replica that is frozen while it is the writer is thrown out, so that the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_writer_does_not_stop_the_others_for_ever() {
    let database = TestDatabase::postgres();
    let (db, frozen) = (Db::open(&database.url).unwrap(), Db::open(&database.url).unwrap());
    let (begun, wake) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let frozen = tokio::spawn(async move {
        frozen
            .system_write(move |tx| {
                insert(tx, "frozen")?;
                begun.0.send(()).unwrap();
                wake.1.recv().ok();
                insert(tx, "late")
            })
            .await
    });
    tokio::task::spawn_blocking(move || begun.1.recv().unwrap()).await.unwrap();
    let began = Instant::now();
    while db.system_write(|tx| insert(tx, "quick")).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the frozen writer is still the only one");
    }
    drop(wake.0);
    assert!(matches!(frozen.await.unwrap(), Err(DbError::Unavailable(_))));
    assert_eq!(count(&db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_and_comes_back_is_used_again() {
    let mut server = Postgres::start(Durability::Full);
    let db = Db::open(&server.database()).unwrap();
    good(db.system_write(|tx| insert(tx, "lab")).await);
    server.stop();
    let began = Instant::now();
    let away = db.system_read(|tx| project::list(tx, ALL)).await;
    assert!(matches!(away, Err(DbError::Unavailable(_))), "{away:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    server.resume();
    let began = Instant::now();
    while count_or_nothing(&db).await.is_none() {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(count(&db).await, 1, "what was committed is there");
}

async fn count_or_nothing(db: &Db) -> Option<usize> {
    let listed: Result<_, DbError> = db.system_read(|tx| project::list(tx, ALL)).await;
    listed.ok().map(|listed| listed.len())
}
