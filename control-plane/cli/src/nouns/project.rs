//! `bmi project`.

use bmi_api::{NewProject, Project, ProjectPatch};
use bmi_types::Name;
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists projects.
    List,
    /// Shows a project.
    Show {
        /// Its name or id.
        project: String,
    },
    /// Creates a project.
    Create {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// Free text.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Changes a project.
    Update {
        /// Its name or id.
        project: String,
        /// Another name.
        #[arg(long)]
        name: Option<Name>,
        /// Another text.
        #[arg(long)]
        description: Option<String>,
        /// Only when it is still at this version.
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Deletes a project that owns nothing.
    Delete {
        /// Its name or id.
        project: String,
    },
    /// Who has which role in a project: `bmi project member -p PROJECT add SUBJECT ROLE`.
    #[command(subcommand)]
    Member(super::member::Verb),
}

const COLUMNS: &[Column<Project>] = &[
    ("NAME", |project| project.name.to_string()),
    ("ID", |project| project.id.to_string()),
    ("CREATED", |project| project.created_at.to_string()),
    ("DESCRIPTION", |project| project.description.clone()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => output.list(&client.list::<Project>("/v1/projects").await?, COLUMNS),
        Verb::Show { project } => {
            output.one(&client.get(&format!("/v1/projects/{}", part(&project)?)).await?, COLUMNS)
        }
        Verb::Create { name, description } => {
            output.one(&client.post("/v1/projects", &NewProject { name, description }).await?, COLUMNS)
        }
        Verb::Update { project, name, description, if_version } => {
            let path = format!("/v1/projects/{}", part(&project)?);
            output.one(&client.patch(&path, &ProjectPatch { name, description }, if_version).await?, COLUMNS)
        }
        Verb::Member(verb) => {
            let members = format!("/v1/projects/{}/members", part(session.project()?)?);
            super::member::run(session, &members, verb).await
        }
        Verb::Delete { project } => {
            client.delete(&format!("/v1/projects/{}", part(&project)?)).await?;
            output.done(&format!("project {project} deleted"))
        }
    }
}
