//! What a program reaches of files, ports, sockets and processes: Landlock.
//!
//! As much of it as the kernel knows (ABI 1 to 6); [`Level::here`] says how much that is. Not part of it: UDP, sockets
//! that are bound to a path (both need a newer kernel), and what is open already.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, PathFdError,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// Everything that is known here; what the kernel does not know is left out.
const NEWEST: ABI = ABI::V6;

/// Where programs of the usual architectures find their loader: it is executed with the program.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// Where libraries are.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// Why it is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A file or directory of the rules.
    #[error("opening what it may reach")]
    Open(#[from] PathFdError),
    /// The kernel.
    #[error("Landlock")]
    Landlock(#[from] RulesetError),
}

/// How much of Landlock a kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Absent,
    /// Files, and what the number says: 4 and more: ports; 6 and more: signals and abstract sockets.
    Abi(i32),
}

impl Level {
    /// Of the running kernel. A thread that ends with the answer is restricted to find out.
    #[must_use]
    pub fn here() -> Self {
        let status = std::thread::spawn(|| {
            let rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.create()?;
            rules.restrict_self()
        });
        match status.join() {
            Ok(Ok(RestrictionStatus {
                landlock: LandlockStatus::Available { effective_abi, .. }, ..
            })) => Self::Abi(effective_abi as i32),
            _ => Self::Absent,
        }
    }

    /// What is missing, for people; nothing when all of it is there.
    #[must_use]
    pub const fn missing(self) -> Option<&'static str> {
        match self {
            Self::Absent => Some(
                "the kernel has no Landlock (or `lsm=` leaves it out): files and ports are held by the other barriers only",
            ),
            Self::Abi(..=3) => {
                Some("the kernel's Landlock does not know ports (Linux 6.7) nor signals (6.12)")
            }
            Self::Abi(4 | 5) => Some("the kernel's Landlock does not know signals (Linux 6.12)"),
            Self::Abi(_) => None,
        }
    }
}

/// What a program may reach. Everything else is refused.
#[derive(Debug, Default)]
pub struct Reach<'a> {
    /// What it is, and may execute.
    pub program: Option<BorrowedFd<'a>>,
    /// Files it may open to read.
    pub read: Vec<BorrowedFd<'a>>,
    /// Files it may open to read and write; neither to shorten nor to remove.
    pub write: Vec<BorrowedFd<'a>>,
    /// Directories below which it may open files to read, as they are called where it will be.
    pub read_below: Vec<PathBuf>,
    /// A directory in which it may make files and sockets, and remove them.
    pub make_below: Option<PathBuf>,
    /// TCP ports it may bind.
    pub listen: &'a [u16],
    /// TCP ports it may connect to, on whatever host: from the first to the last.
    pub connect: &'a [(u16, u16)],
}

/// Rules that are ready.
#[derive(Debug)]
pub struct Ready(RulesetCreated);

impl Reach<'_> {
    /// Opens what it takes.
    ///
    /// # Errors
    /// When something is absent, or the kernel refuses a rule.
    pub fn prepare(&self) -> Result<Ready, ReachError> {
        let read = BitFlags::from(AccessFs::ReadFile);
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        if let Some(program) = self.program {
            rules = rules.add_rule(PathBeneath::new(program, read | AccessFs::Execute))?;
        }
        for file in &self.read {
            rules = rules.add_rule(PathBeneath::new(*file, read))?;
        }
        for file in &self.write {
            rules = rules.add_rule(PathBeneath::new(*file, read | AccessFs::WriteFile))?;
        }
        for directory in &self.read_below {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, read))?;
        }
        if let Some(directory) = &self.make_below {
            let make = AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::WriteFile;
            rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, read | make))?;
        }
        let there = |path: &&str| Path::new(path).exists();
        for directory in LIBRARIES.iter().filter(|path| there(path)) {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, read))?;
        }
        for loader in LOADERS.iter().filter(|path| there(path)) {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(loader)?, read | AccessFs::Execute))?;
        }
        for port in self.listen {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        for port in self.connect.iter().flat_map(|(first, last)| *first..=*last) {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        Ok(Ready(rules))
    }
}

impl Ready {
    /// Puts the rules in force for the calling thread and what it becomes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(self) -> Result<(), ReachError> {
        self.0.restrict_self()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_told() {
        assert!(Level::Absent.missing().unwrap().contains("no Landlock"));
        assert!(Level::Abi(3).missing().unwrap().contains("ports"));
        assert!(Level::Abi(5).missing().unwrap().contains("signals"));
        assert_eq!(Level::Abi(6).missing(), None);
    }

    #[test]
    fn finding_out_restricts_nobody_else() {
        let found = Level::here();
        assert!(std::fs::File::open("/proc/self/status").is_ok());
        assert_eq!(Level::here(), found);
    }
}
