//! `bmi authority`.

use bmi_api::{Authority, NewAuthority};
use bmi_types::AuthorityId;
use clap::Subcommand;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists those that are trusted, oldest first.
    List,
    /// Makes a new one, which issues from now on. Those before it stay trusted until they are retired.
    Rotate {
        /// Only if this is the newest one.
        #[arg(long, value_name = "AUTHORITY")]
        after: Option<AuthorityId>,
    },
    /// Removes one that no agent needs any more: nobody trusts it from now on.
    Retire {
        /// Its id.
        authority: String,
    },
}

const COLUMNS: &[Column<Authority>] = &[
    ("ID", |authority| authority.id.to_string()),
    ("ISSUES", |authority| if authority.issuing { "yes" } else { "no" }.to_owned()),
    ("AGENTS", |authority| authority.agents.to_string()),
    ("MADE", |authority| authority.created_at.to_string()),
    ("UNTIL", |authority| authority.expires_at.to_string()),
    ("PUBLIC KEY (SHA-256)", |authority| authority.spki_sha256.clone()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        Verb::List => output.list(&client.list::<Authority>("/v1/authorities").await?, COLUMNS),
        Verb::Rotate { after } => {
            output.one(&client.post::<Authority>("/v1/authorities", &NewAuthority { after }).await?, COLUMNS)
        }
        Verb::Retire { authority } => {
            client.delete(&format!("/v1/authorities/{}", part(&authority)?)).await?;
            output.done(&format!("authority {authority} retired"))
        }
    }
}
