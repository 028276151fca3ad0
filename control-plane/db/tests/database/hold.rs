//! Who serves a database, and who has all of it.

use bmi_db::{Db, DbError, Held, Purpose};
use bmi_tests::{TestDatabase, on_both_databases};

use super::sql::{execute, is_postgres};

on_both_databases! {
    nothing_works_on_the_whole_while_somebody_serves_and_nobody_serves_meanwhile,
    a_lock_that_was_lost_is_asked_for_again,
}

fn is_in_use(held: Result<Held, DbError>) -> bool {
    matches!(held, Err(DbError::InUse(_)))
}

async fn nothing_works_on_the_whole_while_somebody_serves_and_nobody_serves_meanwhile(
    database: TestDatabase,
) {
    let db = Db::open(&database.url).unwrap();
    let first = db.hold(Purpose::Serving).unwrap();
    if is_postgres(&database.url) {
        drop(db.hold(Purpose::Serving).unwrap());
    } else {
        assert!(is_in_use(db.hold(Purpose::Serving)), "SQLite has one server");
    }
    assert!(is_in_use(db.hold(Purpose::Whole)));
    drop(first);
    let whole = db.hold(Purpose::Whole).unwrap();
    assert!(is_in_use(db.hold(Purpose::Serving)));
    assert!(is_in_use(Held::of_url(&database.url, Purpose::Whole)));
    drop(whole);
    db.hold(Purpose::Serving).unwrap();
}

async fn a_lock_that_was_lost_is_asked_for_again(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let mut held = db.hold(Purpose::Serving).unwrap();
    assert!(!held.renew().unwrap());
    if !is_postgres(&database.url) {
        return;
    }
    let terminate = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                     WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    execute(&database.url, terminate);
    assert!(held.renew().unwrap(), "the connection broke, and there is a new one");
    assert!(!held.renew().unwrap());
    assert!(is_in_use(db.hold(Purpose::Whole)), "and it holds");
    execute(&database.url, terminate);
    let _whole = db.hold(Purpose::Whole).unwrap();
    assert!(matches!(held.renew(), Err(DbError::InUse(_))), "somebody else was quicker");
}
