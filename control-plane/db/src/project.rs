//! Projects.

use bmi_api::{NewProject, Project};
use bmi_types::{ProjectId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable};
use crate::schema::projects;
use crate::{AnyConnection, DbError};

#[derive(Queryable, Insertable)]
#[diesel(table_name = projects)]
struct Row {
    id: Key,
    name: String,
    description: String,
    created_at: i64,
    version: i64,
}

impl Row {
    fn read(self) -> Result<Project, DbError> {
        Ok(Project {
            id: self.id.into(),
            name: readable("projects", "name", &self.name, self.name.parse())?,
            description: self.description,
            created_at: Timestamp::from_micros(self.created_at),
            version: self.version,
        })
    }
}

/// Writes a new project.
pub fn insert(
    connection: &mut AnyConnection,
    id: ProjectId,
    new: &NewProject,
    now: Timestamp,
) -> Result<Project, DbError> {
    let row = Row {
        id: id.into(),
        name: new.name.to_string(),
        description: new.description.clone(),
        created_at: now.micros(),
        version: 1,
    };
    diesel::insert_into(projects::table).values(&row).execute(connection)?;
    row.read()
}

/// Finds one project.
pub fn find(connection: &mut AnyConnection, reference: &Reference) -> Result<Option<Project>, DbError> {
    let row: Option<Row> = match reference {
        Reference::Id(id) => {
            projects::table.filter(projects::id.eq(Key(*id))).first(connection).optional()?
        }
        Reference::Name(name) => {
            projects::table.filter(projects::name.eq(name.as_str())).first(connection).optional()?
        }
    };
    row.map(Row::read).transpose()
}

/// One page of projects.
pub fn list(connection: &mut AnyConnection, after: After) -> Result<Vec<Project>, DbError> {
    let rows: Vec<Row> = projects::table
        .filter(projects::id.gt(Key(after.id)))
        .order(projects::id.asc())
        .limit(after.limit)
        .load(connection)?;
    rows.into_iter().map(Row::read).collect()
}

/// Writes a changed project under its next version; answers false when it had been changed in between.
pub fn update(connection: &mut AnyConnection, project: &Project) -> Result<bool, DbError> {
    let changed = diesel::update(
        projects::table
            .filter(projects::id.eq(Key::from(project.id)))
            .filter(projects::version.eq(project.version)),
    )
    .set((
        projects::name.eq(project.name.as_str()),
        projects::description.eq(&project.description),
        projects::version.eq(project.version + 1),
    ))
    .execute(connection)?;
    Ok(changed == 1)
}

/// Removes a project.
pub fn delete(connection: &mut AnyConnection, id: ProjectId) -> Result<(), DbError> {
    diesel::delete(projects::table.filter(projects::id.eq(Key::from(id)))).execute(connection)?;
    Ok(())
}
