//! Giving up rights for good: user, groups, capabilities, and the way back.
//!
//! Called while there is one thread, since several of these belong to the thread.

use caps::{CapSet, CapsHashSet, runtime};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// What could not be given up. The caller must end.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// User or groups.
    #[error("becoming user {uid}")]
    User {
        /// Which.
        uid: u32,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// Capabilities.
    #[error("giving up capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
    /// The check afterwards found some.
    #[error("capabilities are left after giving them up")]
    Left,
    /// `no_new_privs`.
    #[error("forbidding new privileges")]
    NoNewPrivileges(#[source] nix::Error),
}

/// Becomes `uid` with the group of the same number and no other, without any capability, for ever.
///
/// # Errors
/// When anything is left.
pub fn drop_all(uid: u32) -> Result<(), PrivilegeError> {
    let user = |source| PrivilegeError::User { uid, source };
    for capability in runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability).map_err(PrivilegeError::Capabilities)?;
    }
    setgroups(&[]).map_err(user)?;
    let (group, owner) = (Gid::from_raw(uid), Uid::from_raw(uid));
    setresgid(group, group, group).map_err(user)?;
    setresuid(owner, owner, owner).map_err(user)?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(PrivilegeError::Capabilities)?;
    }
    prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    let none = |set| caps::read(None, set).as_ref().is_ok_and(CapsHashSet::is_empty);
    let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Bounding];
    if sets.into_iter().all(none) { Ok(()) } else { Err(PrivilegeError::Left) }
}
