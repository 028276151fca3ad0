//! `bmi operation`.

use bmi_api::{Operation, StepState};
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;
use crate::wait::follow;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists operations; with -p, those of a project.
    List,
    /// Shows an operation; with --wait, follows it to its end.
    Show {
        /// Its id.
        operation: String,
    },
}

/// How an operation is shown.
pub(crate) const COLUMNS: &[Column<Operation>] = &[
    ("OPERATION", |operation| operation.id.to_string()),
    ("KIND", |operation| operation.kind.to_string()),
    ("SUBJECT", |operation| format!("{} {}", operation.subject.kind, operation.subject.name)),
    ("STATE", |operation| operation.state.to_string()),
    ("STEPS", |operation| {
        let done = operation.steps.iter().filter(|step| step.state == StepState::Done).count();
        format!("{done}/{}", operation.steps.len())
    }),
    ("CREATED", |operation| operation.created_at.to_string()),
    ("CODE", |operation| operation.code.map(|code| code.to_string()).unwrap_or_default()),
    ("ERROR", |operation| operation.error.clone().unwrap_or_default()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => {
            let path = match &session.project {
                Some(project) => format!("/v1/operations?project={}", part(project)?),
                None => "/v1/operations".to_owned(),
            };
            output.list(&client.list::<Operation>(&path).await?, COLUMNS)
        }
        Verb::Show { operation } => {
            follow(session, client.get(&format!("/v1/operations/{}", part(&operation)?)).await?).await
        }
    }
}
