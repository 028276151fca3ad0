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
}

impl From<diesel::result::Error> for DbError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::DatabaseErrorKind as Kind;
        use diesel::result::Error;
        match &error {
            Error::DatabaseError(Kind::UniqueViolation | Kind::ForeignKeyViolation, info) => {
                Self::Conflict(info.message().to_owned())
            }
            Error::DatabaseError(Kind::ClosedConnection | Kind::SerializationFailure, info) => {
                Self::Unavailable(info.message().to_owned())
            }
            Error::DatabaseError(_, info) if info.message().contains("database is locked") => {
                Self::Unavailable(info.message().to_owned())
            }
            _ => Self::Query(error),
        }
    }
}
