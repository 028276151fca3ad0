//! What a transaction may see, and the transactions themselves.
//!
//! There is no connection without a scope: a caller's transaction is a [`Tx`], which sees the caller's projects and
//! nothing else; only what acts for no caller (workflows, the reconciler, agents' reports) has a [`SystemTx`].
//!
//! Invariants: every query on rows that projects own takes the scope of its [`Tx`], or an [`InProject`] that was
//! found through it; an [`InProject`] cannot be made otherwise. What is another's is not found by the same statement
//! as what does not exist.

use std::ops::{Deref, DerefMut};

use bmi_auth::Scope;
use bmi_types::ProjectId;

use crate::connection::AnyConnection;
use crate::key::Key;

/// A transaction in a caller's scope.
pub struct Tx<'c> {
    connection: &'c mut AnyConnection,
    scope: Scope,
}

impl<'c> Tx<'c> {
    pub(crate) const fn new(connection: &'c mut AnyConnection, scope: Scope) -> Self {
        Self { connection, scope }
    }

    /// The connection, for this crate's statements.
    pub(crate) const fn sql(&mut self) -> &mut AnyConnection {
        self.connection
    }

    /// Narrows what it may see to some projects. It never sees more than before.
    pub fn narrow(&mut self, to: &[ProjectId]) {
        let allowed = match &self.scope {
            Scope::Everything => to.to_vec(),
            Scope::Projects(ids) => ids.iter().copied().filter(|id| to.contains(id)).collect(),
        };
        self.scope = Scope::Projects(allowed);
    }

    /// The ids of the projects it may see; nothing when it sees all.
    pub(crate) fn only(&self) -> Option<Vec<Key>> {
        match &self.scope {
            Scope::Everything => None,
            Scope::Projects(ids) => Some(ids.iter().map(|id| Key::from(*id)).collect()),
        }
    }
}

/// A transaction that acts for no caller.
pub struct SystemTx<'c>(Tx<'c>);

impl<'c> SystemTx<'c> {
    pub(crate) const fn new(connection: &'c mut AnyConnection) -> Self {
        Self(Tx::new(connection, Scope::Everything))
    }

    /// The project that an operation or an instance names.
    #[must_use]
    pub const fn project(&self, id: ProjectId) -> InProject {
        InProject(id)
    }
}

impl<'c> Deref for SystemTx<'c> {
    type Target = Tx<'c>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for SystemTx<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// A project that was found in the scope of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InProject(ProjectId);

impl From<InProject> for bmi_auth::Domain {
    fn from(place: InProject) -> Self {
        Self::Project(place.0)
    }
}

impl InProject {
    pub(crate) const fn found(id: ProjectId) -> Self {
        Self(id)
    }

    pub(crate) fn key(self) -> Key {
        self.0.into()
    }

    /// Its id.
    #[must_use]
    pub const fn id(self) -> ProjectId {
        self.0
    }
}
