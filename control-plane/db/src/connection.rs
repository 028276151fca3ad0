//! The connection pool, transactions and migrations.

use std::time::Duration;

use bmi_auth::Scope;
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::watch;

use crate::DbError;
use crate::scope::{SystemTx, Tx};

const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// Connections kept: more than the workers that wait for one at a time.
const POOL_SIZE: u32 = 16;
/// How long a request waits for a connection before it is told that the database is overloaded.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// How long SQLite waits for another writer, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 10_000;

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    /// PostgreSQL.
    Postgres(diesel::PgConnection),
    /// SQLite.
    Sqlite(diesel::SqliteConnection),
}

/// Sets up each SQLite connection: enforced references, a log that lets readers go on, a bounded wait for writers.
#[derive(Debug)]
struct Setup;

impl CustomizeConnection<AnyConnection, diesel::r2d2::Error> for Setup {
    fn on_acquire(&self, connection: &mut AnyConnection) -> Result<(), diesel::r2d2::Error> {
        match connection {
            AnyConnection::Postgres(_) => Ok(()),
            AnyConnection::Sqlite(sqlite) => sqlite
                .batch_execute(&format!(
                    "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; PRAGMA journal_mode = WAL; \
                     PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                ))
                .map_err(diesel::r2d2::Error::QueryError),
        }
    }
}

/// The database.
#[derive(Clone)]
pub struct Db {
    pool: Pool<ConnectionManager<AnyConnection>>,
    written: watch::Sender<()>,
    alone: bool,
}

impl Db {
    /// Opens the database at a URL (`postgres://…`, or a path for SQLite) and migrates it.
    ///
    /// # Errors
    /// When it cannot be reached or migrated.
    pub fn open(url: &str) -> Result<Self, DbError> {
        let pool = Pool::builder()
            .max_size(POOL_SIZE)
            .min_idle(Some(1))
            .connection_timeout(POOL_WAIT)
            .connection_customizer(Box::new(Setup))
            .build(ConnectionManager::new(url))
            .map_err(|error| DbError::Unavailable(error.to_string()))?;
        let mut connection = pool.get().map_err(|error| DbError::Unavailable(error.to_string()))?;
        let alone = matches!(&*connection, AnyConnection::Sqlite(_));
        let migrated = match &mut *connection {
            AnyConnection::Postgres(postgres) => {
                postgres.run_pending_migrations(POSTGRES).map(|done| done.len())
            }
            AnyConnection::Sqlite(sqlite) => sqlite.run_pending_migrations(SQLITE).map(|done| done.len()),
        }
        .map_err(|error| DbError::Migration(error.to_string()))?;
        if migrated > 0 {
            tracing::info!(migrations = migrated, "database migrated");
        }
        drop(connection);
        Ok(Self { pool, written: watch::channel(()).0, alone })
    }

    fn connection(
        &self,
    ) -> Result<diesel::r2d2::PooledConnection<ConnectionManager<AnyConnection>>, DbError> {
        self.pool.get().map_err(|error| DbError::Unavailable(error.to_string()))
    }

    /// Runs a transaction that only reads, in a caller's scope.
    ///
    /// # Errors
    /// Those of the closure, and when no connection can be had.
    pub async fn read<T, E, F>(&self, scope: Scope, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(move |connection| work(&mut Tx::new(connection, scope)), Begin::Reading).await
    }

    /// Runs a transaction that writes, in a caller's scope. There is one writer at a time from the start of the
    /// transaction, so what was read in it still holds when it is committed.
    ///
    /// # Errors
    /// Those of the closure, after which nothing has changed, and when no connection can be had.
    pub async fn write<T, E, F>(&self, scope: Scope, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writing(move |connection| work(&mut Tx::new(connection, scope))).await
    }

    /// Runs a transaction that only reads, for no caller: workflows, the reconciler, agents' reports.
    ///
    /// # Errors
    /// Those of the closure, and when no connection can be had.
    pub async fn system_read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut SystemTx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(move |connection| work(&mut SystemTx::new(connection)), Begin::Reading).await
    }

    /// Runs a transaction that writes, for no caller.
    ///
    /// # Errors
    /// Those of the closure, after which nothing has changed, and when no connection can be had.
    pub async fn system_write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut SystemTx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.writing(move |connection| work(&mut SystemTx::new(connection))).await
    }

    async fn writing<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T, E> + Send + 'static,
    {
        let result = self.run(work, Begin::Writing).await;
        if result.is_ok() {
            self.written.send_replace(());
        }
        result
    }

    /// Whether this process is alone: a SQLite file has one server.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// Tells of each transaction of this process that wrote, from now on. Only a hint: another replica's writes are
    /// not told.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    async fn run<T, E, F>(&self, work: F, begin: Begin) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T, E> + Send + 'static,
    {
        let db = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = db.connection()?;
            transaction(&mut connection, begin, work)
        });
        match task.await {
            Ok(result) => result,
            Err(failed) => Err(DbError::Unavailable(format!("a database task failed: {failed}")).into()),
        }
    }
}

#[derive(Clone, Copy)]
enum Begin {
    Reading,
    Writing,
}

fn transaction<T, E: From<DbError>>(
    connection: &mut AnyConnection,
    begin: Begin,
    work: impl FnOnce(&mut AnyConnection) -> Result<T, E>,
) -> Result<T, E> {
    match (&mut *connection, begin) {
        (AnyConnection::Sqlite(sqlite), Begin::Writing) => {
            AnsiTransactionManager::begin_transaction_sql(sqlite, "BEGIN IMMEDIATE")
        }
        (AnyConnection::Sqlite(sqlite), Begin::Reading) => AnsiTransactionManager::begin_transaction(sqlite),
        (AnyConnection::Postgres(postgres), _) => {
            AnsiTransactionManager::begin_transaction_sql(postgres, "BEGIN ISOLATION LEVEL SERIALIZABLE")
        }
    }
    .map_err(DbError::from)?;
    let result = work(connection);
    let ended = match (&mut *connection, result.is_ok()) {
        (AnyConnection::Sqlite(sqlite), true) => AnsiTransactionManager::commit_transaction(sqlite),
        (AnyConnection::Sqlite(sqlite), false) => AnsiTransactionManager::rollback_transaction(sqlite),
        (AnyConnection::Postgres(postgres), true) => AnsiTransactionManager::commit_transaction(postgres),
        (AnyConnection::Postgres(postgres), false) => AnsiTransactionManager::rollback_transaction(postgres),
    };
    match (result, ended) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(DbError::from(error).into()),
        (Err(error), _) => Err(error),
    }
}
