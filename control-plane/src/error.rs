//! Why the application refused or failed, as the API says it.

use bmi_api::{Blocker, Code, Fault, Problem};
use bmi_auth::SealError;
use bmi_db::DbError;
use bmi_drivers::store::StoreError;

use crate::code;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The caller can do something about it; this is what it is told.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The database failed.
    #[error("the database failed")]
    Db(#[source] DbError),
    /// The data store failed.
    #[error("the data store failed")]
    Store(#[source] StoreError),
    /// A secret could not be sealed or opened.
    #[error("a secret could not be sealed or opened")]
    Seal(#[from] SealError),
    /// Something that cannot happen did.
    #[error("{0}")]
    Defect(String),
}

impl From<DbError> for AppError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl AppError {
    /// A refusal.
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::new(code, detail)))
    }

    /// A refusal because of other things, which are listed.
    pub fn blocked(detail: impl Into<String>, blockers: Vec<Blocker>) -> Self {
        Self::Refused(Box::new(Problem { blockers, ..Problem::new(Code::InUse, detail) }))
    }

    /// A refusal of a request with faults. They are all told.
    #[must_use]
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.detail),
            many => format!("{} faults", many.len()),
        };
        Self::Refused(Box::new(Problem { errors, ..Problem::new(Code::Invalid, detail) }))
    }

    /// The refusal of everything that is absent, or another project's: always the same.
    #[must_use]
    pub fn not_found() -> Self {
        Self::refused(Code::NotFound, "there is no such resource")
    }

    /// Whether it is a refusal with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(problem) if problem.code == code)
    }

    /// Whether it is the answer for what is absent.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(Code::NotFound)
    }

    /// What the caller is told. What is the server's own fault is logged here, once, and not told.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) => *problem,
            Self::Db(DbError::Conflict(_)) => Problem::new(
                Code::Duplicate,
                "something of that name or address was created at the same time",
            ),
            Self::Db(DbError::Unavailable(reason)) => {
                tracing::error!(reason, "the database is not available");
                Problem::new(Code::Unavailable, "the database is not available")
            }
            Self::Store(error) => store_problem(&error),
            error => {
                tracing::error!(error = bmi_types::chain(&error), "a request failed");
                Problem::new(Code::Internal, "the server failed; its log has the request id")
            }
        }
    }
}

/// What the caller is told of a store's failure: nothing that only the operator should know.
fn store_problem(error: &StoreError) -> Problem {
    let detail = match error {
        // The caller can do something about these.
        StoreError::Refused(refusal) => return Problem::new(code::of_store(error), refusal.to_string()),
        StoreError::Source(refusal) => return Problem::new(code::of_store(error), refusal.to_string()),
        StoreError::Full { .. } => "the data store has no space left",
        StoreError::Denied { .. } => "the server may not do this in the data store",
        StoreError::Foreign(_) => "the data store has something there that is not BMI's",
        StoreError::Unreachable { .. } => "the data store does not answer",
        StoreError::Unusable(_) => "the data store cannot be used as it is",
        StoreError::Absent(_) | StoreError::NoTag { .. } => "the data store has lost what this is about",
        StoreError::WrongState { .. } => "what the data store has of this is in another state",
        StoreError::Io { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Records(_)
        | StoreError::Conversion(_) => "the server failed; its log has the request id",
    };
    let code = code::of_store(error);
    tracing::error!(%code, error = bmi_types::chain(error), "the data store failed");
    Problem::new(code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_refuses_has_a_code_of_its_own_and_tells_nobody_why() {
        let source = || std::io::Error::other("client.bmi at 10.0.0.1");
        let action = || "open bmi/secret".to_owned();
        let cases = [
            (StoreError::Full { action: action() }, Code::StoreFull),
            (StoreError::Denied { action: action(), source: source() }, Code::StoreDenied),
            (StoreError::Unreachable { action: action(), source: source() }, Code::Unavailable),
            (StoreError::Foreign("bmi/secret has a stranger".to_owned()), Code::StoreForeign),
            (StoreError::Unusable("bmi/secret".to_owned()), Code::StoreUnusable),
            (StoreError::Io { action: action(), source: source() }, Code::Internal),
        ];
        for (error, code) in cases {
            let problem = AppError::from(error).into_problem();
            assert_eq!(problem.code, code);
            assert!(
                !problem.detail.contains("secret") && !problem.detail.contains("10.0.0.1"),
                "{}",
                problem.detail
            );
        }
    }
}
