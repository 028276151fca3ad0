//! `bmi role`.

use bmi_api::{NewRole, Role, RolePatch};
use bmi_types::Name;
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists roles: the built-in ones first.
    List,
    /// Shows a role and what it permits.
    Show {
        /// Its name.
        role: String,
    },
    /// Makes a custom role.
    Create {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// What it permits: image:write, image:* or *; may be given several times. `bmi role permissions` lists all.
        #[arg(long = "permit", value_name = "PERMISSION", required = true)]
        permissions: Vec<String>,
        /// Free text.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Changes a custom role, for everybody who has it.
    Update {
        /// Its name.
        role: String,
        /// What it permits, all of it; may be given several times.
        #[arg(long = "permit", value_name = "PERMISSION")]
        permissions: Vec<String>,
        /// Another text.
        #[arg(long)]
        description: Option<String>,
        /// Only when it is still at this version.
        #[arg(long)]
        if_version: Option<i64>,
    },
    /// Removes a custom role that nobody has.
    Delete {
        /// Its name.
        role: String,
    },
    /// Lists every permission that the built-in roles name.
    Permissions,
}

const COLUMNS: &[Column<Role>] = &[
    ("NAME", |role| role.name.clone()),
    ("KIND", |role| if role.built_in { "built in" } else { "custom" }.to_owned()),
    ("PERMITS", |role| role.permissions.join(" ")),
    ("DESCRIPTION", |role| role.description.clone()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => output.list(&client.list::<Role>("/v1/roles").await?, COLUMNS),
        Verb::Show { role } => {
            output.one(&client.get(&format!("/v1/roles/{}", part(&role)?)).await?, COLUMNS)
        }
        Verb::Create { name, permissions, description } => {
            output.one(&client.post("/v1/roles", &NewRole { name, description, permissions }).await?, COLUMNS)
        }
        Verb::Update { role, permissions, description, if_version } => {
            let path = format!("/v1/roles/{}", part(&role)?);
            let permissions = (!permissions.is_empty()).then_some(permissions);
            output.one(
                &client.patch(&path, &RolePatch { description, permissions }, if_version).await?,
                COLUMNS,
            )
        }
        Verb::Delete { role } => {
            client.delete(&format!("/v1/roles/{}", part(&role)?)).await?;
            output.done(&format!("role {role} deleted"))
        }
        Verb::Permissions => {
            let roles = client.list::<Role>("/v1/roles").await?;
            let mut all: Vec<String> = roles.into_iter().flat_map(|role| role.permissions).collect();
            all.sort();
            all.dedup();
            output.list(&all, &[("PERMISSION", String::clone)])
        }
    }
}
