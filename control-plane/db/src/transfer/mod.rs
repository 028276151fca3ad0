//! A whole database into another one: moving, backing up and restoring are all this.
//!
//! Every table is read in one transaction of the source, so that it is one state whatever is written meanwhile, and
//! written in one of the target, which has everything or nothing. What the target then holds is read again and compared
//! with what was read from the source, before it is committed.
//!
//! Deliberately absent: `compatibility`. The target's migrations are this release's, and have written it.

mod content;
mod table;
mod value;

use std::path::Path;

use diesel::connection::SimpleConnection;

pub use content::Content;
use table::TABLES;

use crate::connection::AnyConnection;
use crate::database::Database;
use crate::migration::{self, migrate};
use crate::transaction::{Begin, transaction};
use crate::{Db, DbError, SystemTx, lease};

/// The table that migrations put a row into.
const SEEDED: &str = "policy_version";

/// What becomes of leases and of requests that were running in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// They are kept: the copy is a backup of what is going on.
    Kept,
    /// They end: nobody serves the source any more, and whoever serves the target goes on at once.
    Ended,
}

/// What was copied: each table's name and content.
pub type Transferred = Vec<(&'static str, Content)>;

/// What is copied: each table with its columns, after those it refers to.
pub fn tables() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    TABLES.iter().map(|table| (table.name, table.columns.iter().map(|(name, _)| *name).collect()))
}

/// Copies everything into a database that is empty.
///
/// # Errors
/// [`DbError::Content`] when the target is not empty, or holds something else afterwards; then it is as it was.
pub fn transfer(from: &Db, to: &Db, held: Held) -> Result<Transferred, DbError> {
    let (mut from, mut to) = (from.connection()?, to.connection()?);
    copy_all(&mut from, &mut to, held)
}

/// Copies everything into a new file of SQLite, which is whole by itself afterwards.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_to_file(from: &Db, file: &Path) -> Result<Transferred, DbError> {
    let database = Database::Sqlite(file.to_owned());
    migrate(&database)?;
    let mut to = database.connect()?;
    let copied = copy_all(&mut *from.connection()?, &mut to, Held::Kept)?;
    // What is in the log comes into the file.
    to.batch_execute("PRAGMA journal_mode = DELETE")?;
    Ok(copied)
}

/// Marks a database as moved away: nobody opens it any more.
///
/// # Errors
/// When it cannot be written.
pub fn moved(db: &Db) -> Result<(), DbError> {
    transaction(&mut *db.connection()?, Begin::Writing, migration::moved)
}

fn copy_all(from: &mut AnyConnection, to: &mut AnyConnection, held: Held) -> Result<Transferred, DbError> {
    transaction(from, Begin::Reading, |from| {
        take_time(from)?;
        transaction(to, Begin::Writing, |to| {
            take_time(to)?;
            is_empty(to)?;
            let copied = copy(from, to)?;
            if held == Held::Ended {
                lease::end_all(&mut SystemTx::new(to))?;
            }
            Ok(copied)
        })
    })
}

/// Whether a database holds nothing.
///
/// # Errors
/// When it cannot be read.
pub fn empty(db: &Db) -> Result<bool, DbError> {
    let mut connection = db.connection()?;
    match transaction(&mut connection, Begin::Reading, is_empty) {
        Ok(()) => Ok(true),
        Err(DbError::Content(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A table that is read as a stream takes as long as it is large.
fn take_time(connection: &mut AnyConnection) -> Result<(), DbError> {
    if let AnyConnection::Postgres(_) = connection {
        let unbounded = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
        connection.batch_execute(unbounded)?;
    }
    Ok(())
}

fn is_empty(of: &mut AnyConnection) -> Result<(), DbError> {
    for table in TABLES.iter().filter(|table| table.name != SEEDED) {
        let rows = table.rows(of)?;
        if rows > 0 {
            let name = table.name;
            return Err(DbError::Content(format!("the database is not empty: {name} has {rows} rows")));
        }
    }
    Ok(())
}

fn copy(from: &mut AnyConnection, to: &mut AnyConnection) -> Result<Transferred, DbError> {
    let mut copied = Transferred::new();
    for table in TABLES {
        if table.name == SEEDED {
            table.clear(to)?;
        }
        copied.push((table.name, table.copy(from, to)?));
    }
    for (table, (name, there)) in TABLES.iter().zip(&copied) {
        let here = table.content(to)?;
        if here != *there {
            let (rows, expected) = (here.rows, there.rows);
            return Err(DbError::Content(format!(
                "{name} differs after it was copied: {rows} rows of content {}, and {expected} of {} were read",
                here.hash(),
                there.hash()
            )));
        }
    }
    Ok(copied)
}
