//! Images.

use bmi_types::{ByteSize, ImageFormat, ImageId, Name, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words;

words! {
    /// Where an image is in its life.
    ImageState {
        /// Content is expected or arriving. Enters: created. Leaves: `seal`, `delete`.
        Open = "open",
        /// An operation fills or seals it. Enters: `import`, `seal`. Leaves: to `sealed`, or back where it came from.
        Sealing = "sealing",
        /// Immutable: a golden image, the only thing that can be cloned. Leaves: `delete`, when nothing was cloned.
        Sealed = "sealed",
        /// Being removed.
        Deleting = "deleting",
    }
}

words! {
    /// Who may use an image.
    Visibility {
        /// The project that owns it.
        Private = "private",
        /// The owner and the projects it names may clone it.
        Shared = "shared",
        /// Every project may clone it.
        Public = "public",
    }
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Bytes received. Send the next chunk with this `Upload-Offset`.
    pub offset: ByteSize,
    /// Bytes of the whole file.
    pub size: ByteSize,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its name, unique in its project.
    pub name: Name,
    /// Its owner.
    pub project: ProjectId,
    /// Who may use it.
    pub visibility: Visibility,
    /// Where it is in its life.
    pub state: ImageState,
    /// How the file that it is made from holds the disk.
    pub format: ImageFormat,
    /// Size of the disk, in bytes.
    pub virtual_size: ByteSize,
    /// SHA-256 of the whole disk, once sealed.
    pub sha256: Option<String>,
    /// While it is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upload: Option<Upload>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Grows with each change; the `ETag`.
    pub version: i64,
}

/// What creates an image to upload to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImage {
    /// Its name.
    pub name: Name,
    /// Size of the disk: a multiple of 512, from 1 MiB to 64 TiB.
    #[schema(value_type = u64, minimum = 1_048_576, maximum = 70_368_744_177_664_u64, multiple_of = 512)]
    pub virtual_size: ByteSize,
    /// How the file holds the disk: `raw` unless it is said. What is not raw is converted when it is sealed.
    #[schema(required = false, nullable = true)]
    pub format: ImageFormat,
    /// Bytes of the file, when it is not raw.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 70_368_744_177_664_u64)]
    pub file_size: Option<ByteSize>,
}

/// The body that creates an image, in either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum NewImageBody {
    /// To upload to.
    Upload(NewImage),
    /// From the import directory.
    Import(NewImageImport),
    /// From the store.
    ImportStored(NewImageImportStored),
}

/// What imports an image from the server's import directory and seals it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImageImport {
    /// Its name.
    pub name: Name,
    /// A relative path below the server's `import_dir`, of a disk image.
    #[serde(rename = "import_file")]
    pub file: String,
    /// How the file holds the disk: `raw` unless it is said.
    #[schema(required = false, nullable = true)]
    pub format: ImageFormat,
}

/// What imports an image that is in the server's store already, where its operator put it for that, and seals it. It is
/// copied; what it is copied from stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewImageImportStored {
    /// Its name.
    pub name: Name,
    /// The name of an RBD image in the namespace that the server's configuration names: `NAME` as it is now, which nobody
    /// may have open for writing and which has no clones, or `NAME@SNAPSHOT`.
    #[serde(rename = "import_rbd")]
    pub source: String,
}

/// Who else may clone an image. Only its owner sees and changes that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sharing {
    /// `private`, `shared` with some projects, or `public`.
    pub visibility: Visibility,
    /// The ids of the projects that it is shared with. They hold while it is `shared`.
    pub projects: Vec<ProjectId>,
}

/// What changes who may clone an image. What was cloned stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SharingPatch {
    /// `private`, `shared` or `public`.
    pub visibility: Visibility,
    /// With `shared`: ids of the projects, all of them, or names of those that the caller may see. An id is not looked
    /// up: that of no project shares with nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub projects: Option<Vec<String>>,
}
