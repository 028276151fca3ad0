//! Projects.

use bmi_api::{NewProject, Project};
use bmi_types::{Name, ProjectId, Timestamp};
use diesel::prelude::*;

use crate::key::{After, Key, Reference, readable};
use crate::role::policy_changed;
use crate::schema::projects;
use crate::scope::InProject;
use crate::{DbError, Tx};

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
pub fn insert(tx: &mut Tx<'_>, id: ProjectId, new: &NewProject, now: Timestamp) -> Result<Project, DbError> {
    let row = Row {
        id: id.into(),
        name: new.name.to_string(),
        description: new.description.clone(),
        created_at: now.micros(),
        version: 1,
    };
    diesel::insert_into(projects::table).values(&row).execute(tx.sql())?;
    // The configuration names projects that may come and go.
    policy_changed(tx)?;
    row.read()
}

/// Finds one project in the transaction's scope.
pub fn find(tx: &mut Tx<'_>, reference: &Reference) -> Result<Option<(Project, InProject)>, DbError> {
    let mut query = projects::table.into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(projects::id.eq_any(only));
    }
    query = match reference {
        Reference::Id(id) => query.filter(projects::id.eq(Key(*id))),
        Reference::Name(name) => query.filter(projects::name.eq(name.as_str())),
    };
    let row: Option<Row> = query.first(tx.sql()).optional()?;
    row.map(|row| row.read().map(|project| (InProject::found(project.id), project)))
        .transpose()
        .map(|found| found.map(|(place, project)| (project, place)))
}

/// The id of every project that has a name, also outside of the scope: whether a name is free is for those to know
/// who may create projects.
pub fn of_name(tx: &mut Tx<'_>, name: &Name) -> Result<Option<ProjectId>, DbError> {
    let id: Option<Key> = projects::table
        .filter(projects::name.eq(name.as_str()))
        .select(projects::id)
        .first(tx.sql())
        .optional()?;
    Ok(id.map(Into::into))
}

/// One page of projects.
pub fn list(tx: &mut Tx<'_>, after: After) -> Result<Vec<Project>, DbError> {
    let mut query = projects::table.into_boxed();
    if let Some(only) = tx.only() {
        query = query.filter(projects::id.eq_any(only));
    }
    let rows: Vec<Row> = query
        .filter(projects::id.gt(Key(after.id)))
        .order(projects::id.asc())
        .limit(after.limit)
        .load(tx.sql())?;
    rows.into_iter().map(Row::read).collect()
}

/// Writes a changed project under its next version; answers false when it had been changed in between.
pub fn update(tx: &mut Tx<'_>, project: &Project) -> Result<bool, DbError> {
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
    .execute(tx.sql())?;
    policy_changed(tx)?;
    Ok(changed == 1)
}

/// Removes a project.
pub fn delete(tx: &mut Tx<'_>, id: ProjectId) -> Result<(), DbError> {
    diesel::delete(projects::table.filter(projects::id.eq(Key::from(id)))).execute(tx.sql())?;
    policy_changed(tx)
}
