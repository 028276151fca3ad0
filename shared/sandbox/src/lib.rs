//! What keeps a program that will be owned one day where it is: applied by its launcher right before it becomes the
//! program, so that the program cannot leave any of it out.
//!
//! Barriers, in the order in which they go up: a root directory of its own ([`root`]), limits ([`limits`]), no right
//! and no way back to one ([`privileges`]), what it reaches of files and ports ([`reach`], Landlock), and which system
//! calls it may make at all ([`filter`], seccomp, from the profiles in `infra/seccomp`). Each is useful without the
//! others; the tests take one away at a time.
//!
//! Deliberately absent: namespaces of network, processes and mounts (the launcher is in them before this begins), and
//! any decision which program may do what: that is the profiles' and the caller's.
//!
//! Invariants: called while there is one thread, as root of the mount namespace; nothing is undone on failure, the
//! caller ends.

pub mod descriptors;
pub mod filter;
pub mod limits;
pub mod oci;
pub mod privileges;
pub mod profile;
pub mod reach;
pub mod root;

use std::collections::BTreeSet;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub use filter::FilterError;
pub use limits::Limits;
pub use privileges::PrivilegeError;
pub use profile::{Profile, ProfileError};
pub use reach::{Level, Reach, ReachError};
pub use root::{Root, RootError};

/// A barrier that can be left out on purpose: to find out what a new kernel or C library needs, and in tests that show
/// that each barrier holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Barrier {
    /// A root directory of its own.
    Root,
    /// Limits of memory, files, processes.
    Limits,
    /// Files and ports, by Landlock.
    Landlock,
    /// System calls, by seccomp.
    Seccomp,
}

/// Whose end ends the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiesWith {
    /// It lives on: it is found again by who looks after it.
    Nobody,
    /// The thread that started it.
    Parent,
}

/// Why a barrier is not up. The caller must end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The root directory.
    #[error("making a root directory of its own")]
    Root(#[from] RootError),
    /// A limit.
    #[error("setting limits")]
    Limits(#[source] nix::Error),
    /// Rights.
    #[error("giving up rights")]
    Rights(#[from] PrivilegeError),
    /// The signal at the parent's end.
    #[error("ending with the parent")]
    Parent(#[source] nix::Error),
    /// Landlock.
    #[error("restricting files and ports")]
    Reach(#[from] ReachError),
    /// seccomp.
    #[error("restricting system calls")]
    Filter(#[from] FilterError),
}

/// Everything around one program.
#[derive(Debug)]
pub struct Sandbox<'a> {
    /// As whom it runs; the group has the same number.
    pub user: u32,
    /// What it sees.
    pub root: Root,
    /// How much of anything it gets.
    pub limits: Limits,
    /// What it may open and where it may listen.
    pub reach: Reach<'a>,
    /// Which system calls it may make.
    pub profile: &'a Profile,
    /// What is left out on purpose.
    pub without: BTreeSet<Barrier>,
    /// Whose end ends it.
    pub dies_with: DiesWith,
}

impl Sandbox<'_> {
    /// Puts every barrier up around the calling process, for ever. What comes next must be `exec`.
    ///
    /// # Errors
    /// When one is not up.
    pub fn enter(self) -> Result<(), SandboxError> {
        let with = |barrier| !self.without.contains(&barrier);
        // Compiled while nothing is forbidden yet.
        let filters = filter::compile(self.profile)?;
        if with(Barrier::Root) {
            self.root.enter()?;
        }
        if with(Barrier::Limits) {
            self.limits.apply().map_err(SandboxError::Limits)?;
        }
        // Opened as root, since the directories on the way may be closed to the user.
        let reach = if with(Barrier::Landlock) { Some(self.reach.prepare()?) } else { None };
        privileges::drop_all(self.user)?;
        if self.dies_with == DiesWith::Parent {
            // After the user has changed, which would clear it.
            set_pdeathsig(Signal::SIGKILL).map_err(SandboxError::Parent)?;
        }
        if let Some(reach) = reach {
            reach.apply()?;
        }
        if with(Barrier::Seccomp) {
            filters.apply()?;
        }
        Ok(())
    }
}
