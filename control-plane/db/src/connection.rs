//! The database: its pool of connections, and the transactions that the application runs on it.

use std::time::Duration;

use bmi_auth::Scope;
use diesel::r2d2::{Pool, PooledConnection};
use tokio::sync::watch;

use crate::DbError;
use crate::database::{Connector, Database, Kind};
use crate::migration::{self, Schema, migrate, schema};
use crate::scope::{SystemTx, Tx};
use crate::transaction::{Begin, transaction};

/// Connections kept: more than the workers that wait for one at a time.
const POOL_SIZE: u32 = 16;
/// How long a request waits for a connection before it is told that the database is overloaded or away.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    /// PostgreSQL.
    Postgres(diesel::PgConnection),
    /// SQLite.
    Sqlite(diesel::SqliteConnection),
}

/// The database.
#[derive(Clone)]
pub struct Db {
    database: Database,
    pool: Pool<Connector>,
    written: watch::Sender<()>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its URL may have a password.
        write!(out, "Db({:?})", self.kind())
    }
}

impl Db {
    /// Opens the database at a URL (`postgres://…`, or a path for SQLite) and migrates it.
    ///
    /// # Errors
    /// When it cannot be reached or migrated, or needs a newer release.
    pub fn open(url: &str) -> Result<Self, DbError> {
        let database = Database::of_url(url);
        let migrated = migrate(&database)?;
        if migrated > 0 {
            tracing::info!(migrations = migrated, "database migrated");
        }
        Self::of(database)
    }

    /// Opens the database at a URL as it is: one with exactly the schema of this release, of which nothing is lost
    /// when all that this release knows of it is read.
    ///
    /// # Errors
    /// When it cannot be reached, or has another schema.
    pub fn open_as_it_is(url: &str) -> Result<Self, DbError> {
        let database = Database::of_url(url);
        match &database {
            Database::Sqlite(path) if !path.exists() => {
                return Err(DbError::Unavailable(format!("{} does not exist", path.display())));
            }
            _ => {}
        }
        match schema(&database)? {
            Schema::Same => Self::of(database),
            Schema::Older => Err(DbError::Migration("it has the schema of an older release".to_owned())),
            Schema::Newer => Err(DbError::Migration("it has the schema of a newer release".to_owned())),
        }
    }

    fn of(database: Database) -> Result<Self, DbError> {
        let pool = Pool::builder()
            .max_size(POOL_SIZE)
            .min_idle(Some(1))
            .connection_timeout(POOL_WAIT)
            .build(Connector(database.clone()))
            .map_err(|error| DbError::Unavailable(error.to_string()))?;
        Ok(Self { database, pool, written: watch::channel(()).0 })
    }

    /// Looks whether this release can still work with the database, which a newer one may have migrated meanwhile.
    ///
    /// # Errors
    /// [`DbError::TooNew`] when it cannot any more, [`DbError::Unavailable`] while the database is away.
    pub async fn suits(&self) -> Result<(), DbError> {
        self.run(migration::suits, Begin::Reading).await
    }

    /// Which of the two it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.database.kind()
    }

    pub(crate) const fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) fn connection(&self) -> Result<PooledConnection<Connector>, DbError> {
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
    pub fn is_alone(&self) -> bool {
        self.kind() == Kind::Sqlite
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
