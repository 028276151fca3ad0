//! A whole database into another: between every pair of the two kinds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bmi_db::sealed::{self, Column};
use bmi_db::transfer::{self, Held, transfer};
use bmi_db::{After, Db, DbError, project, role};
use bmi_tests::TestDatabase;
use bmi_types::{ProjectId, Timestamp};
use uuid::Uuid;

use super::sql::{execute, good, is_postgres, lines, new_project};

const ALL: After = After { id: Uuid::nil(), limit: 10_000 };

fn each_pair() -> [(TestDatabase, TestDatabase); 4] {
    [
        (TestDatabase::sqlite(), TestDatabase::postgres()),
        (TestDatabase::postgres(), TestDatabase::sqlite()),
        (TestDatabase::sqlite(), TestDatabase::sqlite()),
        (TestDatabase::postgres(), TestDatabase::postgres()),
    ]
}

fn filled() -> [TestDatabase; 2] {
    [TestDatabase::sqlite(), TestDatabase::postgres()].map(|database| {
        Db::open(&database.url).unwrap();
        execute(&database.url, include_str!("sample.sql"));
        database
    })
}

/// A text of every column of every row: what the databases themselves make of them.
fn everything(url: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (table, columns) in transfer::tables() {
        let columns: Vec<String> =
            columns.iter().map(|column| format!("COALESCE(CAST({column} AS TEXT), 'nothing')")).collect();
        let mut rows = lines(url, &format!("SELECT {} AS line FROM {table}", columns.join(" || '|' || ")));
        rows.sort();
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    all
}

#[test]
fn every_table_and_column_is_copied_each_after_what_it_refers_to() {
    let database = TestDatabase::sqlite();
    Db::open(&database.url).unwrap();
    let listed = |query: &str| -> BTreeSet<String> { lines(&database.url, query).into_iter().collect() };
    let mut before = BTreeSet::new();
    for (table, columns) in transfer::tables() {
        let there = listed(&format!("SELECT name AS line FROM pragma_table_info('{table}')"));
        assert_eq!(columns.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), there, "{table}");
        let refers =
            listed(&format!("SELECT DISTINCT \"table\" AS line FROM pragma_foreign_key_list('{table}')"));
        assert!(refers.is_subset(&before), "{table} refers to {refers:?}");
        before.insert(table.to_owned());
    }
    let mut made = listed(
        "SELECT name AS line FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name <> '__diesel_schema_migrations'",
    );
    assert!(made.remove("compatibility"), "the target's own migrations write it");
    assert_eq!(before, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_whatever_the_pair() {
    let [sqlite, postgres] = filled();
    let expected = everything(&sqlite.url);
    assert_eq!(everything(&postgres.url), expected);
    for (table, _) in transfer::tables() {
        assert!(expected.iter().any(|line| line.starts_with(&format!("{table}: "))), "{table} has a row");
    }
    // More than one batch.
    let rows: Vec<String> = (0..1201)
        .map(|number| {
            let instance = "00000000-0000-7000-8000-000000000041";
            format!("('00000000-0000-7000-9000-{number:012}', '{instance}', {number}, 'dhcp', '{{}}')")
        })
        .collect();
    for from in [&sqlite, &postgres] {
        execute(&from.url, &format!("INSERT INTO stages VALUES {}", rows.join(", ")));
        for to in [TestDatabase::sqlite(), TestDatabase::postgres()] {
            let (source, target) = (Db::open(&from.url).unwrap(), Db::open(&to.url).unwrap());
            let copied = transfer(&source, &target, Held::Kept).unwrap();
            assert_eq!(everything(&to.url), everything(&from.url));
            let stages = copied.iter().find(|(table, _)| *table == "stages").unwrap();
            assert_eq!(stages.1.rows, 1202);
            let again = Db::open(&TestDatabase::postgres().url).unwrap();
            assert_eq!(transfer(&target, &again, Held::Kept).unwrap(), copied, "the same content");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_empty_is_refused_and_left_as_it_is() {
    for (from, to) in each_pair() {
        let (source, target) = (Db::open(&from.url).unwrap(), Db::open(&to.url).unwrap());
        execute(&from.url, include_str!("sample.sql"));
        assert!(transfer::empty(&target).unwrap());
        execute(&to.url, "INSERT INTO revoked_tokens (sha256, expires_at) VALUES ('x', 1)");
        let before = everything(&to.url);
        assert!(!transfer::empty(&target).unwrap());
        let refused = transfer(&source, &target, Held::Kept).unwrap_err();
        assert!(
            matches!(&refused, DbError::Content(why) if why.contains("revoked_tokens has 1")),
            "{refused}"
        );
        assert_eq!(everything(&to.url), before);
    }
}

/// Makes a database change or refuse what is written to a table.
fn sabotage(url: &str, table: &str, how: &str) {
    if is_postgres(url) {
        let body = match how {
            "refuse" => "RAISE EXCEPTION 'no'".to_owned(),
            _ => "NEW.description = 'changed'".to_owned(),
        };
        execute(
            url,
            &format!(
                "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$;
                 CREATE TRIGGER spoil BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION spoil()"
            ),
        );
    } else {
        let body = match how {
            "refuse" => "SELECT RAISE(ABORT, 'no')".to_owned(),
            _ => format!("UPDATE {table} SET description = 'changed'"),
        };
        execute(url, &format!("CREATE TRIGGER spoil AFTER INSERT ON {table} BEGIN {body}; END"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_arrives_or_nothing_and_what_arrived_otherwise_is_found() {
    for (table, how) in [("audit_heads", "refuse"), ("roles", "change")] {
        for (from, to) in each_pair() {
            let (source, target) = (Db::open(&from.url).unwrap(), Db::open(&to.url).unwrap());
            execute(&from.url, include_str!("sample.sql"));
            sabotage(&to.url, table, how);
            let error = transfer(&source, &target, Held::Kept).unwrap_err();
            assert_eq!(
                matches!(&error, DbError::Content(why) if why.contains("roles differs")),
                how == "change",
                "{error}"
            );
            assert!(transfer::empty(&target).unwrap());
            assert_eq!(lines(&to.url, "SELECT CAST(version AS TEXT) AS line FROM policy_version"), ["1"]);
        }
    }
}

#[test]
fn what_was_moved_away_is_not_opened_again() {
    for from in filled() {
        let db = Db::open(&from.url).unwrap();
        transfer::moved(&db).unwrap();
        assert!(matches!(Db::open(&from.url), Err(DbError::Moved)));
        assert!(matches!(Db::open_as_it_is(&from.url), Err(DbError::Moved)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sealed_value_is_found_and_can_be_sealed_again() {
    let columns: Vec<String> = transfer::tables()
        .flat_map(|(table, columns)| columns.into_iter().map(move |column| format!("{table}.{column}")))
        .filter(|column| column.ends_with("_sealed"))
        .collect();
    // Beside these, answers that are sealed.
    assert_eq!(columns.len() + 1, Column::ALL.len(), "{columns:?}");
    for database in filled() {
        execute(&database.url, "UPDATE idempotency SET answer = 'v1:DDDD' WHERE key = 'one'");
        let db = Db::open(&database.url).unwrap();
        let found = db.system_write(|tx| {
            let mut found = Vec::new();
            for column in Column::ALL {
                for mut value in sealed::list(tx, column, 10)? {
                    found.push(value.sealed.clone());
                    value.sealed = value.sealed.to_lowercase();
                    sealed::update(tx, &value)?;
                }
            }
            Ok::<_, DbError>(found)
        });
        assert_eq!(good(found.await), ["v1:AAAA", "v1:BBBB", "v1:CCCC", "v1:DDDD", "v1:EEEE", "v1:FFFF"]);
        let all = everything(&database.url).join(" ");
        for letter in 'A'..='F' {
            let sealed = |letter: char| format!("v1:{}", letter.to_string().repeat(4));
            assert!(all.contains(&sealed(letter.to_ascii_lowercase())) && !all.contains(&sealed(letter)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_anything_in_what_was_moved() {
    for from in filled() {
        for to in [TestDatabase::sqlite(), TestDatabase::postgres()] {
            let (source, target) = (Db::open(&from.url).unwrap(), Db::open(&to.url).unwrap());
            transfer(&source, &target, Held::Ended).unwrap();
            let held = "SELECT CAST(sum(lease_until) AS TEXT) AS line FROM operations";
            assert_eq!(lines(&to.url, held), ["0"], "a running operation is taken over at once");
            let epochs = "SELECT CAST(epoch AS TEXT) AS line FROM operations ORDER BY epoch";
            assert_eq!(lines(&to.url, epochs), ["1", "3"], "and whoever held it is fenced by the next claim");
            assert!(lines(&to.url, "SELECT name AS line FROM leases").is_empty());
            assert_eq!(lines(&to.url, "SELECT key AS line FROM idempotency"), ["one"]);
            assert!(lines(&to.url, "SELECT name AS line FROM images WHERE upload_until > 0").is_empty());
        }
    }
}

/// A project that is made moves the policy's version on: whatever is copied in between has as many of the one as
/// of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_copied_while_others_write_is_one_state() {
    for from in [TestDatabase::sqlite(), TestDatabase::postgres()] {
        let source = Db::open(&from.url).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (source, stop) = (source.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let written = source.system_write(move |tx| {
                        let new = new_project(&format!("p{number}"));
                        project::insert(tx, ProjectId::generate(), &new, Timestamp::from_micros(1)).map(drop)
                    });
                    good(written.await);
                }
                number
            })
        };
        let mut sizes = BTreeSet::new();
        for _ in 0..6 {
            let to = TestDatabase::sqlite();
            let (source, target) = (source.clone(), Db::open(&to.url).unwrap());
            let copy = target.clone();
            tokio::task::spawn_blocking(move || transfer(&source, &copy, Held::Kept)).await.unwrap().unwrap();
            let counted = target.system_read(|tx| {
                Ok::<_, DbError>((project::list(tx, ALL)?.len(), role::policy_version(tx)?))
            });
            let (projects, version) = good(counted.await);
            assert_eq!(i64::try_from(projects).unwrap() + 1, version);
            sizes.insert(projects);
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.await.unwrap();
        assert!(sizes.len() > 1 && *sizes.last().unwrap() <= written, "{sizes:?} of {written}");
    }
}
