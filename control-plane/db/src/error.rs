//! What can go wrong with the database.

/// Why a query did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// A uniqueness or reference constraint was violated by a write that came in between.
    #[error("the write conflicts with another one: {0}")]
    Conflict(String),
    /// The database cannot be reached, or is overloaded.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// A row holds what this version cannot read.
    #[error("{table} holds an unreadable {column}: {value}")]
    Unreadable {
        /// In which table.
        table: &'static str,
        /// In which column.
        column: &'static str,
        /// What.
        value: String,
    },
    /// A query failed.
    #[error("a query failed")]
    Query(#[source] diesel::result::Error),
    /// The schema could not be brought up to date.
    #[error("cannot migrate the database: {0}")]
    Migration(String),
    /// The schema needs a newer release than this one.
    #[error(
        "the database needs release {oldest} or newer (counted by migrations), and this is release {mine}"
    )]
    TooNew {
        /// The oldest release that works with it.
        oldest: i64,
        /// This release.
        mine: i64,
    },
    /// It was moved to another server.
    #[error(
        "this database was moved to PostgreSQL, and nobody may work on it any more; set `database` in the configuration"
    )]
    Moved,
    /// Somebody else uses the database in a way that does not go together with this.
    #[error("{0}")]
    InUse(String),
    /// It holds what it must not hold, or not what it must.
    #[error("{0}")]
    Content(String),
}

/// What waiting helps against, where Diesel tells it apart by nothing else. (A server that speaks another language is
/// not understood; then it counts as a failed query. The wait for the writer's lock is told by where it fails.)
const PASSING: [&str; 7] = [
    "database is locked",
    "due to lock timeout",
    "due to statement timeout",
    "terminating connection",
    "server closed the connection",
    "the database system is",
    "too many clients",
];

impl From<diesel::result::Error> for DbError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::DatabaseErrorKind as Kind;
        use diesel::result::Error;
        // The connection broke at the commit, and so did what was to undo it: the first says why.
        if let Error::RollbackErrorOnCommit { commit_error, .. } = error {
            return Self::from(*commit_error);
        }
        match &error {
            Error::DatabaseError(Kind::UniqueViolation | Kind::ForeignKeyViolation, info) => {
                Self::Conflict(info.message().to_owned())
            }
            Error::DatabaseError(Kind::ClosedConnection | Kind::SerializationFailure, info) => {
                Self::Unavailable(info.message().to_owned())
            }
            Error::DatabaseError(Kind::UnableToSendCommand | Kind::ReadOnlyTransaction, info) => {
                Self::Unavailable(info.message().to_owned())
            }
            Error::DatabaseError(_, info) if PASSING.iter().any(|text| info.message().contains(text)) => {
                Self::Unavailable(info.message().to_owned())
            }
            Error::BrokenTransactionManager => Self::Unavailable(error.to_string()),
            _ => Self::Query(error),
        }
    }
}
