//! The caller of a request, once it has proved who it is.

/// A role that holds in every project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May do everything.
    PlatformAdmin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdmin => "platform-admin",
        }
    }
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    subject: String,
    roles: Vec<Role>,
}

impl Caller {
    /// The holder of the local admin token.
    #[must_use]
    pub fn local_admin() -> Self {
        Self { subject: "local-admin".to_owned(), roles: vec![Role::PlatformAdmin] }
    }

    /// A stable name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Roles that hold everywhere.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }
}
