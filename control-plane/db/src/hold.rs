//! Who has a database: those who serve it, or one who works on the whole of it (moves, restores, seals it again).
//!
//! In PostgreSQL any number of replicas serve, and none while somebody works on the whole; in SQLite one server has the
//! file. Both locks end with the process that holds them, however it ends.
//!
//! Invariant: nothing that works on the whole begins while a replica serves, and no replica begins meanwhile. A replica
//! that lost its connection, and with it the lock, must ask again ([`Held::renew`]) and stop when it is refused.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;
use diesel::sql_types::Bool;

use crate::connection::AnyConnection;
use crate::database::Database;
use crate::{Db, DbError};

/// The lock of those who serve, in PostgreSQL's advisory locks of one database.
const SERVING: i64 = 0x626d_6900_0003;

/// For what a database is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve it.
    Serving,
    /// To work on the whole of it.
    Whole,
}

/// A database that is held until this is dropped.
pub struct Held {
    database: Database,
    purpose: Purpose,
    lock: Lock,
}

enum Lock {
    Connection(AnyConnection),
    File { _open: File },
}

#[derive(QueryableByName)]
struct Got {
    #[diesel(sql_type = Bool)]
    got: bool,
}

impl Db {
    /// Holds the database for a purpose.
    ///
    /// # Errors
    /// [`DbError::InUse`] when that does not go together with what others hold it for.
    pub fn hold(&self, purpose: Purpose) -> Result<Held, DbError> {
        Held::of(self.database(), purpose)
    }
}

impl Held {
    /// Holds a database that need not be open, nor exist yet.
    ///
    /// # Errors
    /// As [`Db::hold`].
    pub fn of_url(url: &str, purpose: Purpose) -> Result<Self, DbError> {
        Self::of(&Database::of_url(url), purpose)
    }

    fn of(database: &Database, purpose: Purpose) -> Result<Self, DbError> {
        let lock = match database {
            Database::Sqlite(path) => lock_file(path)?,
            Database::Postgres(_) => lock_connection(database, purpose)?,
        };
        Ok(Self { database: database.clone(), purpose, lock })
    }

    /// Looks whether it is still held, and holds it again after a connection broke; answers whether it had to.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] while the database is away, [`DbError::InUse`] when another has it now.
    pub fn renew(&mut self) -> Result<bool, DbError> {
        match &mut self.lock {
            Lock::File { .. } => Ok(false),
            Lock::Connection(connection) => {
                if connection.ping().is_ok() {
                    return Ok(false);
                }
                self.lock = lock_connection(&self.database, self.purpose)?;
                Ok(true)
            }
        }
    }
}

impl Drop for Held {
    /// The server would notice only a little later that the connection is gone, and refuse who comes next.
    fn drop(&mut self) {
        if let Lock::Connection(connection) = &mut self.lock {
            connection.batch_execute("SELECT pg_advisory_unlock_all()").ok();
        }
    }
}

fn refused(purpose: Purpose) -> DbError {
    DbError::InUse(match purpose {
        Purpose::Serving => {
            "the database is being moved, restored or sealed again, or has its one server".to_owned()
        }
        Purpose::Whole => "a control plane serves the database; stop every replica first".to_owned(),
    })
}

fn lock_connection(database: &Database, purpose: Purpose) -> Result<Lock, DbError> {
    let mut connection = database.connect()?;
    let lock = match purpose {
        Purpose::Serving => "pg_try_advisory_lock_shared",
        Purpose::Whole => "pg_try_advisory_lock",
    };
    // It says nothing for as long as it is held.
    connection.batch_execute("SET idle_session_timeout = 0")?;
    let AnyConnection::Postgres(postgres) = &mut connection else {
        return Err(DbError::Unavailable("SQLite has no such lock".to_owned()));
    };
    let got: Got = diesel::sql_query(format!("SELECT {lock}({SERVING}) AS got")).get_result(postgres)?;
    if got.got { Ok(Lock::Connection(connection)) } else { Err(refused(purpose)) }
}

/// A file beside the database: SQLite's own locks last no longer than a transaction.
fn lock_file(path: &Path) -> Result<Lock, DbError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let unusable = |error: std::io::Error| DbError::Unavailable(format!("{}: {error}", path.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock::File { _open: file }),
        Err(TryLockError::WouldBlock) => {
            Err(DbError::InUse(format!("a control plane, or a command of it, has {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}
