//! Failures: what is printed, and the exit status.

use std::process::ExitCode;

use bmi_api::{Code, Problem};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, a file or the server's answer cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The server refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The server cannot be reached, or has not answered.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Which server.
        server: String,
        /// Why.
        reason: String,
    },
    /// An operation failed, or has not ended in time.
    #[error("{0}")]
    Operation(String),
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Operation(_) => 1,
            Self::Unreachable { .. } => 6,
            Self::Refused(problem) => match problem.status {
                401 | 403 => 3,
                404 => 4,
                400 | 413 | 415 | 422 => 2,
                409 | 412 | 423 | 507 => 5,
                502..=504 => 6,
                _ => 1,
            },
        }
    }

    /// Prints the failure and answers the exit status.
    #[expect(clippy::print_stderr, reason = "this is where the CLI says why it failed")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("bmi: {self}");
        if let Self::Refused(problem) = self {
            for fault in problem.errors.iter().filter(|_| problem.errors.len() > 1) {
                eprintln!("  {}: {}", fault.field, fault.detail);
            }
            for blocker in &problem.blockers {
                eprintln!("  blocked by {} `{}` ({})", blocker.kind, blocker.name, blocker.id);
            }
            if problem.code == Code::Unauthenticated {
                eprintln!("  name a token file: --token-file FILE, or set BMI_TOKEN_FILE");
            }
            if problem.status >= 500 {
                eprintln!("  request {}", problem.request_id);
            }
        }
        ExitCode::from(self.status())
    }
}
