//! Who may do what. Every function of the application asks here first.

use bmi_api::Code;
use bmi_auth::{Caller, Subject};

use crate::error::AppError;

/// What is to be done. One value per thing that can be allowed apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See a project and what it owns.
    ProjectRead,
    /// Create, change or delete projects.
    ProjectWrite,
    /// See networks.
    NetworkRead,
    /// Create or delete networks.
    NetworkWrite,
    /// See nodes.
    NodeRead,
    /// Register, change, assign, release or remove nodes.
    NodeWrite,
    /// Upload, seal or delete images.
    ImageWrite,
    /// Read files of the server's import directory.
    ImageImport,
    /// Provision and deprovision.
    InstanceWrite,
    /// See operations.
    OperationRead,
    /// See how full the store is.
    DatastoreRead,
    /// See how the service does.
    MetricsRead,
}

/// Allows or refuses. The platform admin may do everything; nobody else has a role yet.
pub(crate) fn permit(caller: &Caller, action: Action) -> Result<(), AppError> {
    if caller.subject == Subject::local_admin() {
        return Ok(());
    }
    Err(AppError::refused(
        Code::Forbidden,
        format!("{} may not do this ({action:?})", caller.subject.as_str()),
    ))
}
