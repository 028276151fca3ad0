//! Which database it is, and how a connection to it is made ready.
//!
//! Invariant: a connection goes to the configured database or to none. (Diesel's own choice among backends would try
//! a file of SQLite when PostgreSQL does not answer.)

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::{Error, ManageConnection, R2D2Connection};

use crate::DbError;
use crate::connection::AnyConnection;

/// How long a statement waits for another writer, in milliseconds: longer than any transaction takes, shorter than a
/// caller is willing to wait.
const LOCK_TIMEOUT_MS: u32 = 10_000;
/// How long one statement of PostgreSQL may run, in milliseconds: the slowest reads one page or one journal.
const STATEMENT_TIMEOUT_MS: u32 = 30_000;
/// How long a transaction may say nothing, in milliseconds: a replica that is frozen while it is the writer must not
/// stop the others for longer.
const IDLE_TIMEOUT_MS: u32 = 15_000;
/// How soon a file is tried again that another process is making.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What is asked of libpq unless the URL says otherwise: a server that does not answer is given up in 5 s, and one that
/// vanished without a word in about 10 s.
const LIBPQ: [(&str, &str); 6] = [
    ("connect_timeout", "5"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
    ("application_name", "bmi-control-plane"),
];

/// A database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// The URL of one in PostgreSQL.
    Postgres(String),
    /// The file of one in SQLite.
    Sqlite(PathBuf),
}

/// Which of the two a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL: several replicas may serve it.
    Postgres,
    /// SQLite: one server has it to itself.
    Sqlite,
}

impl Database {
    /// `postgres://…`, `postgresql://…`, or a path.
    pub(crate) fn of_url(url: &str) -> Self {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::Postgres(with_defaults(url))
        } else {
            Self::Sqlite(PathBuf::from(url))
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Postgres(_) => Kind::Postgres,
            Self::Sqlite(_) => Kind::Sqlite,
        }
    }

    /// Connects, with what every connection needs.
    pub(crate) fn connect(&self) -> Result<AnyConnection, DbError> {
        self.establish().map_err(|error| DbError::Unavailable(error.to_string()))
    }

    fn establish(&self) -> Result<AnyConnection, Error> {
        let mut connection = match self {
            Self::Postgres(url) => diesel::PgConnection::establish(url).map(AnyConnection::Postgres),
            Self::Sqlite(path) => {
                diesel::SqliteConnection::establish(&path_url(path)).map(AnyConnection::Sqlite)
            }
        }
        .map_err(Error::ConnectionError)?;
        let setup = match self {
            Self::Postgres(_) => format!(
                "SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}; \
                 SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}; \
                 SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
            ),
            // Enforced references, a log that lets readers go on, a bounded wait for writers.
            Self::Sqlite(_) => format!(
                "PRAGMA busy_timeout = {LOCK_TIMEOUT_MS}; PRAGMA journal_mode = WAL; \
                 PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            ),
        };
        let give_up = Instant::now() + Duration::from_millis(LOCK_TIMEOUT_MS.into());
        loop {
            match connection.batch_execute(&setup) {
                Ok(()) => return Ok(connection),
                // Whoever turns SQLite's log on while another does is refused at once, and not kept waiting.
                Err(error)
                    if error.to_string().contains("database is locked") && Instant::now() < give_up =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(error) => return Err(Error::QueryError(error)),
            }
        }
    }
}

/// SQLite reads names that begin with `file:` as URIs; a path never is one.
fn path_url(path: &Path) -> String {
    if path.is_absolute() { path.display().to_string() } else { format!("./{}", path.display()) }
}

fn with_defaults(url: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let given = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
    let missing = LIBPQ.iter().filter(|(name, _)| !given(name));
    pairs.extend(missing.map(|(name, value)| format!("{name}={value}")));
    format!("{base}?{}", pairs.join("&"))
}

/// Makes the pool's connections.
pub(crate) struct Connector(pub(crate) Database);

impl ManageConnection for Connector {
    type Connection = AnyConnection;
    type Error = Error;

    fn connect(&self) -> Result<AnyConnection, Error> {
        self.0.establish()
    }

    /// A question before each use: a server that was started again leaves dead connections behind.
    fn is_valid(&self, connection: &mut AnyConnection) -> Result<(), Error> {
        match connection {
            AnyConnection::Postgres(postgres) => postgres.ping().map_err(Error::QueryError),
            AnyConnection::Sqlite(_) => Ok(()),
        }
    }

    /// Whether a connection broke, or is still inside a transaction that nobody will end.
    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_what_it_says_and_gets_bounds_for_the_rest() {
        let Database::Postgres(url) =
            Database::of_url("postgres://bmi@db/bmi?sslmode=require&connect_timeout=1")
        else {
            panic!("that is PostgreSQL");
        };
        assert!(
            url.starts_with("postgres://bmi@db/bmi?sslmode=require&connect_timeout=1&keepalives_idle=5&")
        );
        assert!(!url.contains("connect_timeout=5"));
        assert_eq!(Database::of_url("/var/lib/bmi/a=b").kind(), Kind::Sqlite);
    }

    #[test]
    fn postgresql_that_does_not_answer_is_not_taken_for_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("none");
        let url = format!("postgres://bmi@/bmi?host={}", socket.display());
        let error = Database::of_url(&url).connect().map(drop).unwrap_err();
        assert!(matches!(&error, DbError::Unavailable(why) if why.contains("none")), "{error}");
    }
}
