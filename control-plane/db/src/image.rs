//! Images.

use bmi_api::{Image, ImageState, Upload, Visibility};
use bmi_types::{ByteSize, ImageFormat, ImageId, Name, ProjectId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable, signed, unsigned, word};
use crate::schema::{image_shares, images};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable)]
#[diesel(table_name = images)]
struct Row {
    id: Key,
    project_id: Key,
    name: String,
    state: String,
    virtual_size: i64,
    sha256: Option<String>,
    upload_offset: i64,
    import_file: Option<String>,
    created_at: i64,
    version: i64,
    format: String,
    file_size: i64,
    visibility: String,
    used_bytes: i64,
    upload_holder: Option<String>,
    upload_until: i64,
    import_stored: Option<String>,
}

impl Row {
    fn read(self) -> Result<Image, DbError> {
        let state = word!("images", "state", ImageState, self.state)?;
        Ok(Image {
            id: self.id.into(),
            name: readable("images", "name", &self.name, self.name.parse())?,
            project: self.project_id.into(),
            visibility: word!("images", "visibility", Visibility, self.visibility)?,
            state,
            format: word!("images", "format", ImageFormat, self.format)?,
            virtual_size: ByteSize::new(unsigned(self.virtual_size)),
            sha256: self.sha256,
            upload: (state == ImageState::Open).then_some(Upload {
                offset: ByteSize::new(unsigned(self.upload_offset)),
                size: ByteSize::new(unsigned(self.file_size)),
            }),
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }
}

/// What a new image begins as.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its id.
    pub id: ImageId,
    /// Its owner.
    pub project: ProjectId,
    /// Its name.
    pub name: Name,
    /// How its file holds the disk.
    pub format: ImageFormat,
    /// Its size.
    pub virtual_size: ByteSize,
    /// Bytes of the file that is uploaded or imported.
    pub file_size: ByteSize,
    /// `Open` for an upload, `Sealing` for an import.
    pub state: ImageState,
    /// What to import.
    pub import: Option<ImportFrom>,
}

/// What an image is imported from, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportFrom {
    /// A file of the import directory.
    File(String),
    /// An image that is in the store already: `NAME` or `NAME@SNAPSHOT`.
    Stored(String),
}

impl ImportFrom {
    fn columns(from: Option<&Self>) -> (Option<String>, Option<String>) {
        match from {
            None => (None, None),
            Some(Self::File(file)) => (Some(file.clone()), None),
            Some(Self::Stored(name)) => (None, Some(name.clone())),
        }
    }
}

/// Writes a new image.
pub fn insert(tx: &mut Tx<'_>, new: &Beginning, now: Timestamp) -> Result<Image, DbError> {
    let (import_file, import_stored) = ImportFrom::columns(new.import.as_ref());
    let row = Row {
        id: new.id.into(),
        project_id: new.project.into(),
        name: new.name.to_string(),
        state: new.state.to_string(),
        virtual_size: signed(new.virtual_size.bytes()),
        sha256: None,
        upload_offset: 0,
        import_file,
        created_at: now.micros(),
        version: 1,
        format: new.format.to_string(),
        file_size: signed(new.file_size.bytes()),
        visibility: Visibility::Private.to_string(),
        used_bytes: 0,
        upload_holder: None,
        upload_until: 0,
        import_stored,
    };
    diesel::insert_into(images::table).values(&row).execute(tx.sql())?;
    row.read()
}

/// Finds one image of a project.
pub fn find(tx: &mut Tx<'_>, project: InProject, reference: &Reference) -> Result<Option<Image>, DbError> {
    let query = images::table.filter(images::project_id.eq(project.key()));
    let row: Option<Row> = match reference {
        Reference::Id(id) => query.filter(images::id.eq(Key(*id))).first(tx.sql()).optional()?,
        Reference::Name(name) => query.filter(images::name.eq(name.as_str())).first(tx.sql()).optional()?,
    };
    row.map(Row::read).transpose()
}

/// The project that owns an image.
pub fn owner(tx: &mut SystemTx<'_>, id: ImageId) -> Result<Option<ProjectId>, DbError> {
    let owner: Option<Key> = images::table
        .filter(images::id.eq(Key::from(id)))
        .select(images::project_id)
        .first(tx.sql())
        .optional()?;
    Ok(owner.map(Into::into))
}

/// The image an operation works on, and what it imports.
pub fn of_operation(
    tx: &mut Tx<'_>,
    project: InProject,
    id: ImageId,
) -> Result<Option<(Image, Option<ImportFrom>)>, DbError> {
    let row: Option<Row> = images::table
        .filter(images::project_id.eq(project.key()))
        .filter(images::id.eq(Key::from(id)))
        .first(tx.sql())
        .optional()?;
    row.map(|row| {
        let file = row.import_file.clone().map(ImportFrom::File);
        let from = file.or_else(|| row.import_stored.clone().map(ImportFrom::Stored));
        Ok((row.read()?, from))
    })
    .transpose()
}

/// What a project may clone: its own images, those shared with it, and public ones.
macro_rules! usable {
    ($project:expr) => {
        images::project_id.eq($project.key()).or(images::visibility.eq(Visibility::Public.as_str())).or(
            images::id.eq_any(
                image_shares::table
                    .filter(image_shares::project_id.eq($project.key()))
                    .select(image_shares::image_id),
            ),
        )
    };
}

/// The image that a project may clone by a reference: its own by name, and others' by id alone, since whoever shares one
/// chooses its name.
pub fn usable(tx: &mut Tx<'_>, project: InProject, reference: &Reference) -> Result<Option<Image>, DbError> {
    let Reference::Id(id) = reference else { return find(tx, project, reference) };
    let query = images::table.filter(usable!(project)).filter(images::id.eq(Key(*id)));
    let row: Option<Row> = query.first(tx.sql()).optional()?;
    row.map(Row::read).transpose()
}

/// One page of the images that a project may clone.
pub fn list_usable(tx: &mut Tx<'_>, project: InProject, after: After) -> Result<Vec<Image>, DbError> {
    let rows: Vec<Row> = images::table
        .filter(usable!(project))
        .filter(images::id.gt(Key(after.id)))
        .order(images::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// One page of a project's own images.
pub fn list(tx: &mut Tx<'_>, project: InProject, after: After) -> Result<Vec<Image>, DbError> {
    let rows: Vec<Row> = images::table
        .filter(images::project_id.eq(project.key()))
        .filter(images::id.gt(Key(after.id)))
        .order(images::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// The projects that an image is shared with.
pub fn shares(tx: &mut Tx<'_>, project: InProject, id: ImageId) -> Result<Vec<ProjectId>, DbError> {
    let ids: Vec<Key> = image_shares::table
        .inner_join(images::table.on(images::id.eq(image_shares::image_id)))
        .filter(images::project_id.eq(project.key()))
        .filter(image_shares::image_id.eq(Key::from(id)))
        .order(image_shares::project_id.asc())
        .select(image_shares::project_id)
        .load(tx.sql())?;
    Ok(ids.into_iter().map(Into::into).collect())
}

/// Writes who may clone a project's image, under its next version; answers false when it had been changed in between.
pub fn shares_update(
    tx: &mut Tx<'_>,
    project: InProject,
    image: &Image,
    visibility: Visibility,
    with: &[ProjectId],
    now: Timestamp,
) -> Result<bool, DbError> {
    let mine = images::table
        .filter(images::id.eq(Key::from(image.id)))
        .filter(images::project_id.eq(project.key()))
        .filter(images::version.eq(image.version));
    let changed = diesel::update(mine)
        .set((images::visibility.eq(visibility.as_str()), images::version.eq(image.version + 1)))
        .execute(tx.sql())?;
    if changed == 0 {
        return Ok(false);
    }
    let old = image_shares::table.filter(image_shares::image_id.eq(Key::from(image.id)));
    diesel::delete(old).execute(tx.sql())?;
    for other in with {
        let row = (
            image_shares::image_id.eq(Key::from(image.id)),
            image_shares::project_id.eq(Key::from(*other)),
            image_shares::created_at.eq(now.micros()),
        );
        diesel::insert_into(image_shares::table).values(row).execute(tx.sql())?;
    }
    Ok(true)
}

/// Moves an image from one state to another; answers false when it was not in that state.
pub fn state_change(
    tx: &mut Tx<'_>,
    project: InProject,
    id: ImageId,
    from: ImageState,
    to: ImageState,
) -> Result<bool, DbError> {
    let changed = diesel::update(
        images::table
            .filter(images::id.eq(Key::from(id)))
            .filter(images::project_id.eq(project.key()))
            .filter(images::state.eq(from.as_str())),
    )
    .set((images::state.eq(to.as_str()), images::version.eq(images::version + 1)))
    .execute(tx.sql())?;
    Ok(changed == 1)
}

/// Writes what sealing found out, and that the image is sealed.
pub fn sealed(
    tx: &mut Tx<'_>,
    project: InProject,
    id: ImageId,
    size: ByteSize,
    sha256: &str,
) -> Result<(), DbError> {
    let mine =
        images::table.filter(images::id.eq(Key::from(id))).filter(images::project_id.eq(project.key()));
    diesel::update(mine)
        .set((
            images::state.eq(ImageState::Sealed.as_str()),
            images::virtual_size.eq(signed(size.bytes())),
            images::sha256.eq(Some(sha256)),
            images::version.eq(images::version + 1),
        ))
        .execute(tx.sql())?;
    Ok(())
}

/// Removes an image.
pub fn delete(tx: &mut Tx<'_>, project: InProject, id: ImageId) -> Result<(), DbError> {
    let mine =
        images::table.filter(images::id.eq(Key::from(id))).filter(images::project_id.eq(project.key()));
    diesel::delete(mine).execute(tx.sql())?;
    Ok(())
}
