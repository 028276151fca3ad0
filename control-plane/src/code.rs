//! The code of each failure of a driver, as the API, operations and the start of the server tell it: given here and nowhere
//! else.

use bmi_api::Code;
use bmi_drivers::image::ConverterError;
#[cfg(feature = "ceph")]
use bmi_drivers::store::ceph::PreflightError;
use bmi_drivers::store::{ImportSourceError, SourceError, StoreError};

/// The code of what a store did not do.
#[must_use]
pub const fn of_store(error: &StoreError) -> Code {
    match error {
        StoreError::Full { .. } => Code::StoreFull,
        StoreError::Denied { .. } => Code::StoreDenied,
        StoreError::Unreachable { .. } => Code::Unavailable,
        StoreError::Foreign(_) => Code::StoreForeign,
        StoreError::Unusable(_) => Code::StoreUnusable,
        StoreError::Absent(_) | StoreError::NoTag { .. } => Code::StoreMissing,
        StoreError::WrongState { .. } => Code::WrongState,
        StoreError::Refused(_) => Code::ImageRefused,
        StoreError::Conversion(error) => of_converter(error),
        StoreError::Source(error) => of_source(error),
        StoreError::Io { .. } | StoreError::OutOfRange { .. } | StoreError::Records(_) => Code::Internal,
    }
}

const fn of_converter(error: &ConverterError) -> Code {
    match error {
        ConverterError::Failed(_) => Code::ImageRefused,
        ConverterError::NotRoot | ConverterError::NoProgram(_) => Code::ImportUnsupported,
        ConverterError::Start(_)
        | ConverterError::Sandbox(_)
        | ConverterError::Ended(_)
        | ConverterError::GivenUp => Code::Internal,
    }
}

const fn of_source(error: &SourceError) -> Code {
    match error {
        SourceError::NoneHere(_) | SourceError::NotConfigured => Code::ImportUnsupported,
        SourceError::NoImage(_) | SourceError::NoSnapshot(_) => Code::ImportSourceAbsent,
        SourceError::HasClones(_) => Code::ImageHasClones,
        SourceError::InUse(_) | SourceError::Changed(_) => Code::ImageInUse,
        SourceError::Unreadable { .. } => Code::ImageRefused,
    }
}

/// The code of a file that is not imported.
#[must_use]
pub const fn of_import_file(error: &ImportSourceError) -> Code {
    match error {
        ImportSourceError::NotBeneath(_) | ImportSourceError::NotRegular(_) => Code::ImportSourceAbsent,
        ImportSourceError::Refused { .. } => Code::ImageRefused,
    }
}

/// The code of a Ceph that cannot be used.
#[cfg(feature = "ceph")]
#[must_use]
pub fn of_preflight(error: &PreflightError) -> Code {
    match error {
        PreflightError::NoPool { .. } | PreflightError::NoImportNamespace { .. } => Code::StorePoolAbsent,
        PreflightError::NotForRbd { .. } => Code::StorePoolUnfit,
        PreflightError::Cap { .. } => Code::StoreDenied,
        PreflightError::Connect { source, .. } if source.is_refused() => Code::StoreDenied,
        PreflightError::Connect { source, .. } if source.is_timeout() => Code::Unavailable,
        PreflightError::Connect { .. } | PreflightError::Staging { .. } => Code::StoreUnusable,
        PreflightError::Foreign { .. } => Code::StoreForeign,
        PreflightError::Records(_) | PreflightError::Silent { .. } => Code::Unavailable,
        PreflightError::Failed { .. } => Code::Internal,
    }
}
