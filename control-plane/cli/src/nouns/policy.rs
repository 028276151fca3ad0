//! `bmi policy`.

use bmi_api::Explanation;
use clap::Subcommand;

use crate::Session;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Tells whether something is allowed, and which rule decides. Without -p it is about everywhere.
    Explain {
        /// What, such as image:write.
        #[arg(long)]
        action: String,
        /// Of whom (a subject); you when it is not given.
        #[arg(long = "as", value_name = "SUBJECT")]
        of: Option<String>,
        /// A group that the subject is in; may be given several times.
        #[arg(long = "group", value_name = "GROUP", requires = "of")]
        groups: Vec<String>,
    },
}

const COLUMNS: &[Column<Explanation>] = &[
    ("ALLOWED", |it| if it.allowed { "yes" } else { "no" }.to_owned()),
    ("BECAUSE", |it| it.reason.clone()),
    ("SUBJECT", |it| it.subject.clone()),
    ("ACTION", |it| it.action.clone()),
    ("PROJECT", |it| it.project.clone().unwrap_or_else(|| "everywhere".to_owned())),
    ("ROLES", |it| {
        let role = |role: &bmi_api::WhoamiRole| match role.project {
            Some(project) => format!("{} in {project}", role.role),
            None => role.role.clone(),
        };
        it.roles.iter().map(role).collect::<Vec<String>>().join(", ")
    }),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::Explain { action, of, groups } => {
            let mut asked = vec![("action", action)];
            asked.extend(session.project.clone().map(|project| ("project", project)));
            asked.extend(of.map(|of| ("subject", of)));
            if !groups.is_empty() {
                asked.push(("groups", groups.join(",")));
            }
            output.one(&client.get_with("/v1/policy/explain", &asked).await?, COLUMNS)
        }
    }
}
