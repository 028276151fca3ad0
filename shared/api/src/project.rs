//! Projects: tenants.

use bmi_types::{Name, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name, unique among projects.
    pub name: Name,
    /// Free text, at most 1 024 characters.
    pub description: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// What creates a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewProject {
    /// Its name.
    pub name: Name,
    /// Free text.
    pub description: String,
}

/// What changes a project. Absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProjectPatch {
    /// Another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
