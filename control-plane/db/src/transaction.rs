//! How a transaction begins and ends on either database.
//!
//! There is one writer at a time, from the first statement of its transaction to its end: SQLite has that by itself
//! (`BEGIN IMMEDIATE`), PostgreSQL by a lock that every writer takes first. So what was read in a transaction that
//! writes still holds when it is committed, a check and the change that depends on it need no further thought, and
//! there are no serialization failures to try again. The price is that writes do not overlap: each takes a few
//! milliseconds, and a control plane has few.
//!
//! Isolation follows from that. A writer in PostgreSQL is READ COMMITTED: each of its statements sees what was committed
//! before it, hence all that earlier writers did; in REPEATABLE READ the statement that waits for the lock would also fix
//! what is seen, at a time before the writer ahead committed. What only reads is REPEATABLE READ: it sees one state.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};

use crate::DbError;
use crate::connection::AnyConnection;

/// The lock of the writer, in PostgreSQL's advisory locks of one database.
const WRITER: i64 = 0x626d_6900_0001;

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Reading,
    Writing,
}

/// Runs a transaction to its end: committed when the work succeeded, else as if it had never been.
pub(crate) fn transaction<T, E: From<DbError>>(
    connection: &mut AnyConnection,
    begin: Begin,
    work: impl FnOnce(&mut AnyConnection) -> Result<T, E>,
) -> Result<T, E> {
    transaction_begin(connection, begin)?;
    let result = work(connection);
    let ended = transaction_end(connection, result.is_ok());
    match (result, ended) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) => Err(DbError::from(error).into()),
        (Err(error), _) => Err(error),
    }
}

fn transaction_begin(connection: &mut AnyConnection, begin: Begin) -> Result<(), DbError> {
    match (&mut *connection, begin) {
        (AnyConnection::Sqlite(sqlite), Begin::Writing) => {
            AnsiTransactionManager::begin_transaction_sql(sqlite, "BEGIN IMMEDIATE")?;
        }
        (AnyConnection::Sqlite(sqlite), Begin::Reading) => {
            AnsiTransactionManager::begin_transaction(sqlite)?;
        }
        (AnyConnection::Postgres(postgres), Begin::Reading) => {
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            AnsiTransactionManager::begin_transaction_sql(postgres, begin)?;
        }
        (AnyConnection::Postgres(postgres), Begin::Writing) => {
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
            AnsiTransactionManager::begin_transaction_sql(postgres, begin)?;
            let locked = postgres.batch_execute(&format!("SELECT pg_advisory_xact_lock({WRITER})"));
            if let Err(error) = locked {
                // Whatever it says (in the server's language): waiting helps. One that broke is not used again.
                AnsiTransactionManager::rollback_transaction(postgres).ok();
                return Err(DbError::Unavailable(error.to_string()));
            }
        }
    }
    Ok(())
}

fn transaction_end(connection: &mut AnyConnection, commit: bool) -> diesel::QueryResult<()> {
    match (connection, commit) {
        (AnyConnection::Sqlite(sqlite), true) => AnsiTransactionManager::commit_transaction(sqlite),
        (AnyConnection::Sqlite(sqlite), false) => AnsiTransactionManager::rollback_transaction(sqlite),
        (AnyConnection::Postgres(postgres), true) => AnsiTransactionManager::commit_transaction(postgres),
        (AnyConnection::Postgres(postgres), false) => AnsiTransactionManager::rollback_transaction(postgres),
    }
}
