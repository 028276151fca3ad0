//! Images.

use bmi_api::{Image, ImageState, Upload, Visibility};
use bmi_types::{ByteSize, ImageFormat, ImageId, Name, ProjectId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable, signed, unsigned, word};
use crate::schema::images;
use crate::{AnyConnection, DbError};

#[derive(Queryable, Insertable)]
#[diesel(table_name = images)]
struct Row {
    id: Key,
    project_id: Key,
    name: String,
    visibility: String,
    state: String,
    virtual_size: i64,
    sha256: Option<String>,
    upload_offset: i64,
    import_file: Option<String>,
    created_at: i64,
    version: i64,
    format: String,
    file_size: i64,
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
    /// The file to import.
    pub import_file: Option<String>,
}

/// Writes a new image.
pub fn insert(connection: &mut AnyConnection, new: &Beginning, now: Timestamp) -> Result<Image, DbError> {
    let row = Row {
        id: new.id.into(),
        project_id: new.project.into(),
        name: new.name.to_string(),
        visibility: Visibility::Private.to_string(),
        state: new.state.to_string(),
        virtual_size: signed(new.virtual_size.bytes()),
        sha256: None,
        upload_offset: 0,
        import_file: new.import_file.clone(),
        created_at: now.micros(),
        version: 1,
        format: new.format.to_string(),
        file_size: signed(new.file_size.bytes()),
    };
    diesel::insert_into(images::table).values(&row).execute(connection)?;
    row.read()
}

/// Finds one image of a project.
pub fn find(
    connection: &mut AnyConnection,
    project: ProjectId,
    reference: &Reference,
) -> Result<Option<Image>, DbError> {
    let query = images::table.filter(images::project_id.eq(Key::from(project)));
    let row: Option<Row> = match reference {
        Reference::Id(id) => query.filter(images::id.eq(Key(*id))).first(connection).optional()?,
        Reference::Name(name) => query.filter(images::name.eq(name.as_str())).first(connection).optional()?,
    };
    row.map(Row::read).transpose()
}

/// The image an operation works on, and the file it imports.
pub fn of_operation(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: ImageId,
) -> Result<Option<(Image, Option<String>)>, DbError> {
    let row: Option<Row> = images::table
        .filter(images::project_id.eq(Key::from(project)))
        .filter(images::id.eq(Key::from(id)))
        .first(connection)
        .optional()?;
    row.map(|row| {
        let file = row.import_file.clone();
        Ok((row.read()?, file))
    })
    .transpose()
}

/// One page of a project's images.
pub fn list(connection: &mut AnyConnection, project: ProjectId, after: After) -> Result<Vec<Image>, DbError> {
    let rows: Vec<Row> = images::table
        .filter(images::project_id.eq(Key::from(project)))
        .filter(images::id.gt(Key(after.id)))
        .order(images::id.asc())
        .limit(after.limit)
        .load(connection)?;
    rows.into_iter().map(Row::read).collect()
}

/// Moves an upload on; answers false when another one moved it in between, or the image is not open any more.
pub fn upload_advance(
    connection: &mut AnyConnection,
    image: &Image,
    from: ByteSize,
    to: ByteSize,
) -> Result<bool, DbError> {
    let changed = diesel::update(
        images::table
            .filter(images::id.eq(Key::from(image.id)))
            .filter(images::state.eq(ImageState::Open.as_str()))
            .filter(images::upload_offset.eq(signed(from.bytes()))),
    )
    .set((images::upload_offset.eq(signed(to.bytes())), images::version.eq(images::version + 1)))
    .execute(connection)?;
    Ok(changed == 1)
}

/// Moves an image from one state to another; answers false when it was not in that state.
pub fn state_change(
    connection: &mut AnyConnection,
    id: ImageId,
    from: ImageState,
    to: ImageState,
) -> Result<bool, DbError> {
    let changed = diesel::update(
        images::table.filter(images::id.eq(Key::from(id))).filter(images::state.eq(from.as_str())),
    )
    .set((images::state.eq(to.as_str()), images::version.eq(images::version + 1)))
    .execute(connection)?;
    Ok(changed == 1)
}

/// Writes what sealing found out, and that the image is sealed.
pub fn sealed(
    connection: &mut AnyConnection,
    id: ImageId,
    size: ByteSize,
    sha256: &str,
) -> Result<(), DbError> {
    diesel::update(images::table.filter(images::id.eq(Key::from(id))))
        .set((
            images::state.eq(ImageState::Sealed.as_str()),
            images::virtual_size.eq(signed(size.bytes())),
            images::sha256.eq(Some(sha256)),
            images::version.eq(images::version + 1),
        ))
        .execute(connection)?;
    Ok(())
}

/// Removes an image.
pub fn delete(connection: &mut AnyConnection, id: ImageId) -> Result<(), DbError> {
    diesel::delete(images::table.filter(images::id.eq(Key::from(id)))).execute(connection)?;
    Ok(())
}
