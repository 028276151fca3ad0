//! `bmi project member`, and `bmi member` for roles that hold everywhere.

use bmi_api::{Member, NewMember};
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists who has which role.
    List,
    /// Gives somebody a role.
    Add {
        /// Who: user:PROVIDER:SUB, group:PROVIDER:VALUE or service-account:ID; `bmi whoami` shows one's own.
        subject: String,
        /// The role; `bmi role list` shows them.
        #[arg(default_value = "project-member")]
        role: String,
    },
    /// Takes a role away, or all roles when none is named.
    Remove {
        /// Who, or the id of one line of the list.
        subject: String,
        /// The role.
        role: Option<String>,
    },
}

const COLUMNS: &[Column<Member>] = &[
    ("SUBJECT", |member| member.subject.clone()),
    ("ROLE", |member| member.role.clone()),
    ("SINCE", |member| member.created_at.to_string()),
    ("BY", |member| member.created_by.clone()),
    ("ID", |member| member.id.to_string()),
];

/// Runs a verb on the members of a place: `/v1/projects/P/members` or `/v1/members`.
pub(crate) async fn run(session: &Session, members: &str, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => output.list(&client.list::<Member>(members).await?, COLUMNS),
        Verb::Add { subject, role } => {
            output.one(&client.post(members, &NewMember { subject, role }).await?, COLUMNS)
        }
        Verb::Remove { subject, role } => {
            let all = client.list::<Member>(members).await?;
            let meant = all.into_iter().filter(|member| {
                let named = member.subject == subject || member.id.to_string() == subject;
                named && role.as_ref().is_none_or(|role| *role == member.role)
            });
            let meant: Vec<Member> = meant.collect();
            if meant.is_empty() {
                let detail = format!("`{subject}` has no such role here; `list` shows who has");
                return Err(Failure::Refused(Box::new(bmi_api::Problem::new(
                    bmi_api::Code::NotFound,
                    detail,
                ))));
            }
            for member in &meant {
                client.delete(&format!("{members}/{}", part(&member.id.to_string())?)).await?;
            }
            let roles: Vec<&str> = meant.iter().map(|member| member.role.as_str()).collect();
            output.done(&format!("{} has lost {}", subject, roles.join(", ")))
        }
    }
}
