//! The schema: brought up to date at the start, and compared with what this release can work with.
//!
//! Several replicas may start at once on an empty or an old database: one migrates, the others wait and find it done. A
//! migration is carried out wholly or not at all, all that are missing in one transaction.
//!
//! Releases are counted by their newest migration. A database may be newer than the release that opens it: while
//! replicas are upgraded one after the other, the first migrates and the others still serve. The table `compatibility`
//! says which release is the oldest that can; an older one refuses to start.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::DbError;
use crate::connection::AnyConnection;
use crate::database::Database;

const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// The lock of whoever migrates, in PostgreSQL's advisory locks of one database.
const MIGRATING: i64 = 0x626d_6900_0002;
/// How long one replica waits for another that migrates, and how long a migration may take, in milliseconds: one that
/// rewrites a table of a million rows takes a minute.
const MIGRATION_TIMEOUT_MS: u32 = 600_000;

/// What stands for the oldest release in a database that was moved away: no release works with it.
const MOVED: i64 = i64::MAX;

/// Marks a database as moved away.
pub(crate) fn moved(connection: &mut AnyConnection) -> Result<(), DbError> {
    Ok(connection.batch_execute(&format!("UPDATE compatibility SET oldest = {MOVED}"))?)
}

/// What the schema of a database is, beside that of this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// It has exactly this release's migrations.
    Same,
    /// It lacks some.
    Older,
    /// It has some that this release does not know, and says that this release works with it.
    Newer,
}

/// Brings a database up to date; answers how many migrations that took.
pub(crate) fn migrate(database: &Database) -> Result<usize, DbError> {
    let mut connection = database.connect()?;
    let long = match &connection {
        AnyConnection::Postgres(_) => format!(
            "SET lock_timeout = {MIGRATION_TIMEOUT_MS}; SET statement_timeout = {MIGRATION_TIMEOUT_MS}; \
             SET idle_in_transaction_session_timeout = {MIGRATION_TIMEOUT_MS}"
        ),
        AnyConnection::Sqlite(_) => format!("PRAGMA busy_timeout = {MIGRATION_TIMEOUT_MS}"),
    };
    connection.batch_execute(&long)?;
    match &mut connection {
        AnyConnection::Postgres(postgres) => {
            AnsiTransactionManager::begin_transaction_sql(postgres, "BEGIN")?;
            postgres.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATING})"))?;
            let done = missing_run(postgres, POSTGRES);
            ended(postgres, done)
        }
        AnyConnection::Sqlite(sqlite) => {
            AnsiTransactionManager::begin_transaction_sql(sqlite, "BEGIN EXCLUSIVE")?;
            let done = missing_run(sqlite, SQLITE);
            ended(sqlite, done)
        }
    }
}

/// Compares a database with this release, and changes nothing.
pub(crate) fn schema(database: &Database) -> Result<Schema, DbError> {
    match &mut database.connect()? {
        AnyConnection::Postgres(postgres) => schema_of(postgres, POSTGRES),
        AnyConnection::Sqlite(sqlite) => schema_of(sqlite, SQLITE),
    }
}

/// Whether this release can still work with a database that it serves already: a newer one may have migrated it.
pub(crate) fn suits(connection: &mut AnyConnection) -> Result<(), DbError> {
    match connection {
        AnyConnection::Postgres(postgres) => compatible(postgres, &POSTGRES),
        AnyConnection::Sqlite(sqlite) => compatible(sqlite, &SQLITE),
    }
}

fn ended<C>(connection: &mut C, done: Result<usize, DbError>) -> Result<usize, DbError>
where
    C: Connection<TransactionManager = AnsiTransactionManager>,
{
    match &done {
        Ok(_) => AnsiTransactionManager::commit_transaction(connection)?,
        Err(_) => AnsiTransactionManager::rollback_transaction(connection)?,
    }
    done
}

fn failed(error: impl std::fmt::Display) -> DbError {
    DbError::Migration(error.to_string())
}

fn missing_run<C>(connection: &mut C, source: EmbeddedMigrations) -> Result<usize, DbError>
where
    C: MigrationHarness<C::Backend> + Connection,
    EmbeddedMigrations: MigrationSource<C::Backend>,
    C: Versions,
{
    compatible(connection, &source)?;
    connection.run_pending_migrations(source).map(|done| done.len()).map_err(failed)
}

fn schema_of<C>(connection: &mut C, source: EmbeddedMigrations) -> Result<Schema, DbError>
where
    C: Connection + Versions,
    EmbeddedMigrations: MigrationSource<C::Backend>,
{
    compatible(connection, &source)?;
    let known = versions_of::<C>(&source)?;
    let applied = connection.versions()?;
    Ok(if known.iter().any(|version| !applied.contains(version)) {
        Schema::Older
    } else if applied.iter().any(|version| !known.contains(version)) {
        Schema::Newer
    } else {
        Schema::Same
    })
}

fn versions_of<C>(source: &EmbeddedMigrations) -> Result<Vec<String>, DbError>
where
    C: Connection,
    EmbeddedMigrations: MigrationSource<C::Backend>,
{
    let migrations = MigrationSource::<C::Backend>::migrations(source).map_err(failed)?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).collect())
}

/// A migration is called `date-NUMBER_what`; its version is that without dashes, and the number its last six digits.
fn number(version: &str) -> i64 {
    let start = version.len().saturating_sub(6);
    version.get(start..).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Refuses a database that needs a newer release than this one.
fn compatible<C>(connection: &mut C, source: &EmbeddedMigrations) -> Result<(), DbError>
where
    C: Connection + Versions,
    EmbeddedMigrations: MigrationSource<C::Backend>,
{
    let mine = versions_of::<C>(source)?.iter().map(|version| number(version)).max().unwrap_or(0);
    match connection.oldest()? {
        Some(MOVED) => Err(DbError::Moved),
        Some(oldest) if oldest > mine => Err(DbError::TooNew { oldest, mine }),
        _ => Ok(()),
    }
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// What a database says of its own schema.
trait Versions {
    fn has_table(&mut self, table: &str) -> Result<bool, DbError>;
    fn load_versions(&mut self, query: &str) -> Result<Vec<Version>, DbError>;
    fn load_number(&mut self, query: &str) -> Result<i64, DbError>;

    /// The versions of the migrations it has.
    fn versions(&mut self) -> Result<Vec<String>, DbError> {
        if !self.has_table("__diesel_schema_migrations")? {
            return Ok(Vec::new());
        }
        let rows = self.load_versions("SELECT version FROM __diesel_schema_migrations")?;
        Ok(rows.into_iter().map(|row| row.version).collect())
    }

    /// The oldest release that works with it; nothing before the first that said so.
    fn oldest(&mut self) -> Result<Option<i64>, DbError> {
        if !self.has_table("compatibility")? {
            return Ok(None);
        }
        self.load_number("SELECT oldest AS number FROM compatibility").map(Some)
    }
}

/// The same statements on each of the two.
macro_rules! versions {
    ($connection:ty, $has_table:literal) => {
        impl Versions for $connection {
            fn has_table(&mut self, table: &str) -> Result<bool, DbError> {
                let query = diesel::sql_query($has_table).bind::<Text, _>(table);
                Ok(query.get_result::<Number>(self)?.number > 0)
            }

            fn load_versions(&mut self, query: &str) -> Result<Vec<Version>, DbError> {
                Ok(diesel::sql_query(query).load(self)?)
            }

            fn load_number(&mut self, query: &str) -> Result<i64, DbError> {
                Ok(diesel::sql_query(query).get_result::<Number>(self)?.number)
            }
        }
    };
}
versions!(diesel::SqliteConnection, "SELECT count(*) AS number FROM sqlite_master WHERE name = ?");
versions!(
    diesel::PgConnection,
    "SELECT count(*) AS number FROM pg_catalog.pg_class WHERE oid = to_regclass($1)"
);
