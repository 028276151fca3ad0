//! Profiles: which system calls a program may make, and why. They are read from `infra/seccomp`.
//!
//! A profile is data that people review: sorted, each entry with its reason. `refuse` comes before `allow`; whatever
//! is in neither ends the process, since no honest program does it.

use serde::Deserialize;

/// The profiles, by the name of their program.
const PROFILES: [(&str, &str); 6] = [
    ("bmi-broker", include_str!("../../../infra/seccomp/bmi-broker.json")),
    ("bmi-netboot", include_str!("../../../infra/seccomp/bmi-netboot.json")),
    ("bmi-target", include_str!("../../../infra/seccomp/bmi-target.json")),
    ("bmi-target-broker", include_str!("../../../infra/seccomp/bmi-target-broker.json")),
    ("container-runtime", include_str!("../../../infra/seccomp/container-runtime.json")),
    ("qemu-img", include_str!("../../../infra/seccomp/qemu-img.json")),
];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is none.
    #[error("there is no profile `{0}`")]
    Absent(String),
    /// It is not one.
    #[error("reading the profile `{program}`")]
    Content {
        /// Of which program.
        program: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// One profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// For which program.
    pub program: String,
    /// What that is, and who starts it.
    pub what: String,
    /// Another profile, all of which is part of this one.
    #[serde(default)]
    pub extends: Option<String>,
    /// Calls that are answered with an error, because honest programs go on without them.
    pub refuse: Vec<Refused>,
    /// Calls that are made.
    pub allow: Vec<Allowed>,
}

/// A call that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Its name.
    pub syscall: String,
    /// The error.
    pub errno: u32,
    /// The error's name.
    pub is: String,
    /// Why it is refused and does not end the process.
    pub why: String,
}

/// A call that is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Its name.
    pub syscall: String,
    /// The only architecture that has it, as Rust calls it.
    pub arch: Option<String>,
    /// What its arguments must be, all of them.
    #[serde(default)]
    pub args: Vec<Argument>,
    /// What an honest program needs it for.
    pub why: String,
}

/// What one argument must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    /// Which, from 0.
    pub index: u8,
    /// Only these bits are looked at.
    pub mask: Option<u64>,
    /// What they must be.
    pub equals: u64,
    /// What that is called.
    pub is: String,
    /// Whether all 64 bits count; the kernel reads 32 of an `int`.
    #[serde(default)]
    pub wide: bool,
}

impl Profile {
    /// The profile of a program.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(program: &str) -> Result<Self, ProfileError> {
        let (_, text) = PROFILES
            .iter()
            .find(|(name, _)| *name == program)
            .ok_or_else(|| ProfileError::Absent(program.to_owned()))?;
        let mut profile = Self::read(program, text)?;
        match profile.extends.take() {
            Some(other) => Ok(profile.and(Self::of(&other)?)),
            None => Ok(profile),
        }
    }

    /// Both together: for a program that what the other is for starts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.refuse.extend(other.refuse);
        self.allow.extend(other.allow);
        self.allow.sort_by(|one, next| one.syscall.cmp(&next.syscall));
        self
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(program: &str, text: &str) -> Result<Self, ProfileError> {
        serde_json::from_str(text)
            .map_err(|source| ProfileError::Content { program: program.to_owned(), source })
    }

    /// The names of all profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|(name, _)| *name)
    }

    /// The calls that an architecture has.
    pub fn allowed_on<'a>(&'a self, arch: &'a str) -> impl Iterator<Item = &'a Allowed> {
        self.allow.iter().filter(move |allowed| allowed.arch.as_deref().is_none_or(|only| only == arch))
    }
}
