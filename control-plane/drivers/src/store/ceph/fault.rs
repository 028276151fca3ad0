//! What Ceph refuses, in the store's words.

use bmi_rbd::{CommandError, RbdError};

use crate::store::StoreError;

pub(super) fn of_ceph(error: RbdError) -> StoreError {
    let action = error.to_string();
    if error.is_full() {
        return StoreError::Full { action };
    }
    if error.is_refused() {
        return StoreError::Denied { action, source: error.source };
    }
    if error.is_timeout() {
        return StoreError::Unreachable { action, source: error.source };
    }
    StoreError::Io { action, source: error.source }
}

pub(super) fn of_command(error: CommandError) -> StoreError {
    match error {
        CommandError::Call(error) => of_ceph(error),
        CommandError::Refused { command, reason, source } => {
            let action = format!("give the monitors the command `{command}` ({reason})");
            match source.kind() {
                std::io::ErrorKind::PermissionDenied => StoreError::Denied { action, source },
                // What the library answers when no monitor does (`rados_mon_op_timeout`).
                std::io::ErrorKind::TimedOut => StoreError::Unreachable { action, source },
                _ => StoreError::Io { action, source },
            }
        }
        CommandError::Answer { command, source } => {
            let action = format!("understand what the monitors answered to `{command}`");
            StoreError::Io { action, source: std::io::Error::other(source) }
        }
    }
}
