//! `bmi service-account`.

use bmi_api::{
    NewServiceAccount, NewServiceToken, ServiceAccount, ServiceAccountPatch, ServiceAccountWithToken,
};
use bmi_types::Name;
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists the service accounts of the project.
    List,
    /// Shows one.
    Show {
        /// Its name or id.
        account: String,
    },
    /// Creates one, and shows its token this once.
    Create {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// Its role in the project; `bmi role list` shows them.
        #[arg(long, default_value = "project-member")]
        role: String,
        /// What it is limited to: object:act, object:* or *; may be given several times.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// Days until its token ends.
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        expires_days: u32,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Changes one, and what its tokens may do.
    Update {
        /// Its name or id.
        account: String,
        /// Another text.
        #[arg(long)]
        description: Option<String>,
        /// Other limits, instead of all before; may be given several times.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Option<Vec<String>>,
        /// Only if this is still its version.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<i64>,
    },
    /// Deletes one with its tokens and roles.
    Delete {
        /// Its name or id.
        account: String,
    },
    /// Makes a new token, and shows it this once; those before it end.
    Rotate {
        /// Its name or id.
        account: String,
        /// Days until the new token ends.
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        expires_days: u32,
        /// Seconds that the tokens before it live on.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap: u32,
    },
    /// Ends one token at once.
    Revoke {
        /// The account's name or id.
        account: String,
        /// The token's id.
        token: String,
    },
}

fn tokens(account: &ServiceAccount) -> String {
    let shown = account.tokens.iter().map(|token| {
        let used = token.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("used {at}"));
        format!("{} until {}, {used}", token.id, token.expires_at)
    });
    shown.collect::<Vec<_>>().join("\n")
}

const COLUMNS: &[Column<ServiceAccount>] = &[
    ("NAME", |account| account.name.to_string()),
    ("SCOPES", |account| account.scopes.join(" ")),
    ("TOKENS", tokens),
    ("DESCRIPTION", |account| account.description.clone()),
    ("ID", |account| account.id.to_string()),
];

const WITH_TOKEN: &[Column<ServiceAccountWithToken>] = &[
    ("TOKEN", |made| made.token.expose().to_owned()),
    ("NAME", |made| made.account.name.to_string()),
    ("SCOPES", |made| made.account.scopes.join(" ")),
    ("TOKENS", |made| tokens(&made.account)),
    ("ID", |made| made.account.id.to_string()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    let all = format!("/v1/projects/{}/service-accounts", part(session.project()?)?);
    let one = |account: &str| part(account).map(|account| format!("{all}/{account}"));
    match verb {
        Verb::List => output.list(&client.list::<ServiceAccount>(&all).await?, COLUMNS),
        Verb::Show { account } => output.one(&client.get(&one(&account)?).await?, COLUMNS),
        Verb::Create { name, role, scopes, expires_days, description } => {
            let new = NewServiceAccount { name, description, role, scopes, expires_days };
            output.one(&client.post(&all, &new).await?, WITH_TOKEN)
        }
        Verb::Update { account, description, scopes, if_version } => {
            let patch = ServiceAccountPatch { description, scopes };
            output.one(&client.patch(&one(&account)?, &patch, if_version).await?, COLUMNS)
        }
        Verb::Delete { account } => {
            client.delete(&one(&account)?).await?;
            output.done(&format!("service account {account} deleted"))
        }
        Verb::Rotate { account, expires_days, overlap } => {
            let new = NewServiceToken { expires_days, overlap_s: overlap };
            output.one(&client.post(&format!("{}/tokens", one(&account)?), &new).await?, WITH_TOKEN)
        }
        Verb::Revoke { account, token } => {
            client.delete(&format!("{}/tokens/{}", one(&account)?, part(&token)?)).await?;
            output.done(&format!("token {token} revoked"))
        }
    }
}
