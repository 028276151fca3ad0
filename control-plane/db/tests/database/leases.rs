//! What one replica holds: the reconciler, an upload, a request that is running.

use std::time::Duration;

use bmi_api::ImageState;
use bmi_db::idempotency::{self, RUNNING_MAX, Scope, Seen};
use bmi_db::image::{self, Beginning};
use bmi_db::upload::{self, LEASE};
use bmi_db::{Db, DbError, InProject, Reference, lease, project};
use bmi_tests::{TestDatabase, on_both_databases};
use bmi_types::{ByteSize, ImageFormat, ImageId, ProjectId, Timestamp};
use uuid::Uuid;

use super::sql::{good, new_project};

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

on_both_databases! {
    a_lease_has_one_holder_until_it_ends_or_is_given_back,
    of_many_who_want_a_lease_at_once_one_gets_it,
    an_upload_has_one_writer_and_passes_on_when_that_one_is_silent,
    a_request_whose_server_was_killed_is_done_by_a_later_repeat,
    nothing_is_held_after_everything_was_ended,
}

async fn take(db: &Db, holder: &'static str, now: Timestamp) -> bool {
    good(db.system_write(move |tx| lease::hold(tx, "reconciler", holder, now, 10 * SECOND)).await)
}

async fn a_lease_has_one_holder_until_it_ends_or_is_given_back(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    assert!(take(&db, "a", NOW).await);
    assert!(!take(&db, "b", NOW.plus(9 * SECOND)).await, "held");
    assert!(take(&db, "a", NOW.plus(9 * SECOND)).await, "prolonged");
    assert!(!take(&db, "b", NOW.plus(10 * SECOND)).await);
    assert!(take(&db, "b", NOW.plus(19 * SECOND)).await, "it ended by itself");
    assert!(!take(&db, "a", NOW.plus(20 * SECOND)).await);
    good(db.system_write(|tx| lease::give_back(tx, "reconciler", "a")).await);
    assert!(!take(&db, "a", NOW.plus(20 * SECOND)).await, "it was not a's to give back");
    good(db.system_write(|tx| lease::give_back(tx, "reconciler", "b")).await);
    assert!(take(&db, "a", NOW.plus(20 * SECOND)).await);
}

async fn of_many_who_want_a_lease_at_once_one_gets_it(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let db = db.clone();
            tokio::spawn(async move {
                let holder = number.to_string();
                db.system_write(move |tx| lease::hold(tx, "reconciler", &holder, NOW, SECOND)).await
            })
        })
        .collect();
    let mut holders = 0;
    for task in tasks {
        holders += usize::from(good(task.await.unwrap()));
    }
    assert_eq!(holders, 1);
}

async fn open_image(db: &Db) -> (InProject, ImageId) {
    let made = db.system_write(|tx| {
        let new = new_project("lab");
        let id = ProjectId::generate();
        project::insert(tx, id, &new, NOW)?;
        let beginning = Beginning {
            id: ImageId::generate(),
            project: id,
            name: "golden".parse().unwrap(),
            format: ImageFormat::Raw,
            virtual_size: ByteSize::new(4096),
            file_size: ByteSize::new(4096),
            state: ImageState::Open,
            import: None,
        };
        image::insert(tx, &beginning, NOW)?;
        let place = project::find(tx, &Reference::Id(id.uuid()))?.unwrap().1;
        Ok::<_, DbError>((place, beginning.id))
    });
    good(made.await)
}

async fn an_upload_has_one_writer_and_passes_on_when_that_one_is_silent(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let (project, id) = open_image(&db).await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let takes = |holder, now| {
        let db = db.clone();
        async move { good(db.system_write(move |tx| upload::take(tx, project, id, holder, now)).await) }
    };
    let advances = |holder, from, to, now| {
        let db = db.clone();
        let range = (ByteSize::new(from), ByteSize::new(to));
        async move { good(db.system_write(move |tx| upload::advance(tx, project, id, holder, range, now)).await) }
    };
    assert!(takes(one, NOW).await);
    assert!(!takes(other, NOW.plus(SECOND)).await);
    assert!(!advances(other, 0, 512, NOW).await, "it is not its upload");
    assert!(advances(one, 0, 512, NOW.plus(10 * SECOND)).await, "a piece keeps it");
    assert!(!takes(other, NOW.plus(LEASE)).await);
    let renewed = db.system_write(move |tx| upload::renew(tx, id, one, NOW.plus(20 * SECOND))).await;
    assert!(good(renewed), "and so does a sign of life");
    assert!(!takes(other, NOW.plus(10 * SECOND + LEASE)).await);

    let later = NOW.plus(20 * SECOND + LEASE);
    assert!(takes(other, later).await);
    assert!(!advances(one, 512, 1024, later).await, "the one that was silent writes nothing more");
    assert!(!good(db.system_write(move |tx| upload::renew(tx, id, one, later)).await));
    good(db.system_write(move |tx| upload::give_back(tx, id, one)).await);
    assert!(!takes(one, later).await, "nor can it end another's");
    assert!(advances(other, 512, 4096, later).await);
    good(db.system_write(move |tx| upload::give_back(tx, id, other)).await);
    assert!(takes(one, later).await);
}

fn scope() -> Scope {
    Scope {
        caller: "somebody".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/projects".to_owned(),
        key: "k".to_owned(),
    }
}

async fn seen(db: &Db, now: Timestamp) -> Seen {
    let forget = Timestamp::from_micros(0);
    good(db.system_write(move |tx| idempotency::begin(tx, &scope(), "hash", now, forget)).await)
}

async fn a_request_whose_server_was_killed_is_done_by_a_later_repeat(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let Seen::First(first) = seen(&db, NOW).await else { panic!("it is new") };
    let end = NOW.plus(RUNNING_MAX);
    let running = Seen::Running { body_sha256: "hash".to_owned() };
    assert_eq!(seen(&db, Timestamp::from_micros(end.micros() - 1)).await, running);
    let Seen::First(second) = seen(&db, end).await else { panic!("its server is dead") };
    assert_ne!(first, second);
    assert_eq!(seen(&db, end.plus(SECOND)).await, running, "the repeat runs now");
    // The server was not dead but slow: its answer does not count.
    good(db.system_write(move |tx| idempotency::finish(tx, first, "old", "[]")).await);
    good(db.system_write(move |tx| idempotency::forget(tx, first)).await);
    assert_eq!(seen(&db, end.plus(SECOND)).await, running);
    good(db.system_write(move |tx| idempotency::finish(tx, second, "new", "[1]")).await);
    let done =
        Seen::Done { body_sha256: "hash".to_owned(), answer: "new".to_owned(), decisions: "[1]".to_owned() };
    assert_eq!(seen(&db, end.plus(2 * RUNNING_MAX)).await, done, "an answer is kept however long that is");
}

async fn nothing_is_held_after_everything_was_ended(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let (project, id) = open_image(&db).await;
    assert!(take(&db, "a", NOW).await);
    assert!(matches!(seen(&db, NOW).await, Seen::First(_)));
    let holder = Uuid::now_v7();
    assert!(good(db.system_write(move |tx| upload::take(tx, project, id, holder, NOW)).await));
    good(db.system_write(lease::end_all).await);
    assert!(take(&db, "b", NOW).await);
    assert!(matches!(seen(&db, NOW).await, Seen::First(_)));
    let other = Uuid::now_v7();
    assert!(good(db.system_write(move |tx| upload::take(tx, project, id, other, NOW)).await));
}
