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

    /// What can be done about it, where that is known.
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("is it running there? name it: --server URL, or BMI_SERVER"),
            Self::Refused(problem) => Self::hint_of(problem.code),
            Self::Usage(_) | Self::Operation(_) => None,
        }
    }

    /// What can be done about a failure of a kind.
    pub(crate) const fn hint_of(code: Code) -> Option<&'static str> {
        match code {
            Code::Unauthenticated => Some(
                "sign in with `bmi login`, or name a token file: --token-file FILE, or set BMI_TOKEN_FILE",
            ),
            Code::TokenExpired => {
                Some("sign in again with `bmi login`; a service account gets a new token by `rotate`")
            }
            Code::SignInRefused => Some("begin again: bmi login"),
            Code::TooManyRequests => Some("wait a little, then try again"),
            Code::NotFound => {
                Some("see what there is with `bmi NOUN list`; images and instances belong to -p PROJECT")
            }
            Code::Busy => Some("follow it with `bmi operation show OPERATION --wait`, then try again"),
            Code::InUse => Some("remove what blocks it first"),
            Code::NotAssigned => Some("assign it: bmi node assign NODE -p PROJECT"),
            Code::StaleVersion => Some("somebody changed it since; read it again and decide anew"),
            Code::AddressesExhausted => Some("deprovision an instance, or make a network with larger ranges"),
            Code::StoreFull => Some("see `bmi datastore list`; delete images, or enlarge the store"),
            Code::ImageHasClones | Code::ImageInUse => Some("name a snapshot: --rbd NAME@SNAPSHOT"),
            Code::AgentUnavailable => Some("start bmi-agent for that network, or see why it does not report"),
            Code::StoreDenied | Code::StoreForeign | Code::StoreUnusable | Code::StoreMissing => {
                Some("tell an administrator: the server's log says what is wrong with its data store")
            }
            Code::Unavailable => Some("it may pass: try again; the server's log says what is down"),
            Code::Internal => Some("the server's log has the reason under the request's id"),
            _ => None,
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
            if problem.status >= 500 {
                eprintln!("  request {}", problem.request_id);
            }
        }
        if let Some(hint) = self.hint() {
            eprintln!("  {hint}");
        }
        ExitCode::from(self.status())
    }
}
