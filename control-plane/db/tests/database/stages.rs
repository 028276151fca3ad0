//! Stages: an instance keeps the newest.

use bmi_db::Db;
use bmi_db::stage::{self, STAGES_MAX};
use bmi_tests::{TestDatabase, on_both_databases};
use bmi_types::{InstanceId, Timestamp};

on_both_databases! { what_happens_a_thousand_times_does_not_hide_what_happens_next }

async fn what_happens_a_thousand_times_does_not_hide_what_happens_next(database: TestDatabase) {
    let db = Db::open(&database.url).unwrap();
    let (flooded, other) = (InstanceId::generate(), InstanceId::generate());
    let kept = db
        .system_write(move |tx| {
            stage::insert(tx, other, Timestamp::from_micros(0), "login", &stage::Detail::new())?;
            for number in 0..STAGES_MAX + 5 {
                let at = Timestamp::from_micros(number);
                stage::insert(tx, flooded, at, "dhcp", &stage::Detail::new())?;
            }
            let at = Timestamp::from_micros(STAGES_MAX + 5);
            stage::insert(tx, flooded, at, "session.conflict", &stage::Detail::new())?;
            assert_eq!(stage::list(tx, other)?.len(), 1);
            stage::list(tx, flooded)
        })
        .await
        .unwrap();
    assert_eq!(i64::try_from(kept.len()).unwrap(), STAGES_MAX);
    assert_eq!(kept.first().unwrap().0, Timestamp::from_micros(6), "the oldest went");
    assert_eq!(kept.last().unwrap().1, "session.conflict");
}
