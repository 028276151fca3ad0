//! Login status codes (RFC 7143 section 11.13.5).

use std::fmt;

/// Class and detail of a login response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Success.
    pub const SUCCESS: Self = Self(0x0000);
    /// A protocol fault of the initiator.
    pub const INITIATOR_ERROR: Self = Self(0x0200);
    /// Wrong or missing authentication.
    pub const AUTHENTICATION_FAILED: Self = Self(0x0201);
    /// This initiator may not use this target.
    pub const FORBIDDEN: Self = Self(0x0202);
    /// No target of that name.
    pub const NOT_FOUND: Self = Self(0x0203);
    /// No version in common.
    pub const UNSUPPORTED_VERSION: Self = Self(0x0205);
    /// The session has its one connection.
    pub const TOO_MANY_CONNECTIONS: Self = Self(0x0206);
    /// A mandatory key is missing.
    pub const MISSING_PARAMETER: Self = Self(0x0207);
    /// Neither `Normal` nor `Discovery`.
    pub const UNSUPPORTED_SESSION: Self = Self(0x0209);
    /// The session handle names no session.
    pub const NO_SESSION: Self = Self(0x020a);
    /// A fault of the target.
    pub const TARGET_ERROR: Self = Self(0x0300);
    /// Not now; the initiator may retry.
    pub const UNAVAILABLE: Self = Self(0x0301);
    /// Every session is taken; the initiator may retry.
    pub const OUT_OF_RESOURCES: Self = Self(0x0302);
}

impl fmt::Debug for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04x}", self.0)
    }
}
