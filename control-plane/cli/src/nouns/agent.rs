//! `bmi agent`.

use bmi_api::{Agent, AgentApprove, AgentReplace, JoinToken, JoinTokenWithSecret, NewJoinToken};
use bmi_types::AgentId;
use clap::Subcommand;
use serde_json::json;

use crate::Session;
use crate::client::part;
use crate::failure::Failure;
use crate::output::Column;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists agents.
    List {
        /// Only those of a network.
        #[arg(long)]
        network: Option<String>,
    },
    /// Shows one.
    Show {
        /// Its id.
        agent: String,
    },
    /// Approves the key that waits: it is the agent's from now on, and the one before no longer.
    ///
    /// Whoever has a join token of the network can have a key wait. Name the one that the agent's host says (in the log of
    /// `bmi-agent`, or what `bmi-agent enrol` prints); when another waits, reject it.
    Approve {
        /// Its id.
        agent: String,
        /// SHA-256 of the key, as the agent's host says it.
        #[arg(long, value_name = "SHA-256")]
        key: String,
    },
    /// Rejects the key that waits. The agent keeps the one it has.
    Reject {
        /// Its id.
        agent: String,
    },
    /// Revokes one: it may say and hear nothing from its next request on. What it runs goes on.
    Revoke {
        /// Its id.
        agent: String,
    },
    /// Gives the network of an agent that is lost to the one that stands by: the agent is revoked, and whoever has the
    /// network's volumes is fenced first.
    Replace {
        /// The lost agent's id.
        agent: String,
        /// The one that takes over, where several stand by.
        #[arg(long, value_name = "AGENT")]
        by: Option<AgentId>,
    },
    /// Tokens with which agents join.
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Makes a token with which one agent joins a network, once, and shows it this once.
    Create {
        /// The network (name or id).
        #[arg(long)]
        network: String,
        /// Seconds until it ends, at most 3600.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        ttl: u32,
    },
    /// Lists tokens.
    List,
    /// Ends a token at once. An agent that joined with it stays.
    Revoke {
        /// Its id.
        token: String,
    },
}

/// A clock that is off by more than this is shown, in milliseconds: less is the way of the report.
const CLOCK_MS: i64 = 5_000;

fn clock(agent: &Agent) -> String {
    match agent.clock_ahead_ms {
        Some(ahead) if ahead > CLOCK_MS => format!("{} s ahead", ahead / 1000),
        Some(ahead) if ahead < -CLOCK_MS => format!("{} s behind", -ahead / 1000),
        Some(_) => "right".to_owned(),
        None => String::new(),
    }
}

const COLUMNS: &[Column<Agent>] = &[
    ("ID", |agent| agent.id.to_string()),
    ("STATE", |agent| agent.state.to_string()),
    ("SERVING", |agent| if agent.serving { "yes" } else { "no" }.to_owned()),
    ("NETWORK", |agent| agent.network.to_string()),
    ("LAST SEEN", |agent| agent.last_seen.to_string()),
    ("CERTIFICATE UNTIL", |agent| agent.certificate_until.to_string()),
    ("CLOCK", clock),
    ("VERSION", |agent| agent.agent_version.clone()),
];

/// What is too long for a list.
const KEYS: [Column<Agent>; 3] = [
    ("KEY", |agent| agent.key_sha256.clone()),
    ("KEY THAT WAITS", |agent| agent.pending_key_sha256.clone().unwrap_or_default()),
    ("AUTHORITY", |agent| agent.authority.to_string()),
];

fn shown() -> Vec<Column<Agent>> {
    COLUMNS.iter().copied().chain(KEYS).collect()
}

const TOKEN: &[Column<JoinToken>] = &[
    ("ID", |token| token.id.to_string()),
    ("NETWORK", |token| token.network.to_string()),
    ("UNTIL", |token| token.expires_at.to_string()),
    ("USED BY", |token| token.agent.map(|agent| agent.to_string()).unwrap_or_default()),
    ("MADE BY", |token| token.created_by.clone()),
];

const WITH_SECRET: &[Column<JoinTokenWithSecret>] = &[
    ("TOKEN", |made| made.token.expose().to_owned()),
    ("NETWORK", |made| made.join_token.network.to_string()),
    ("UNTIL", |made| made.join_token.expires_at.to_string()),
    ("ID", |made| made.join_token.id.to_string()),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    let one = |agent: &str| part(agent).map(|agent| format!("/v1/agents/{agent}"));
    let change = async |agent: String, what: &str| {
        let agent: Agent = client.post(&format!("{}/{what}", one(&agent)?), &json!({})).await?;
        output.one(&agent, &shown())
    };
    match verb {
        Verb::List { network } => {
            let query: Vec<(&str, String)> =
                network.into_iter().map(|network| ("network", network)).collect();
            output.list(&client.list::<Agent>(&client.path_with("/v1/agents", &query)?).await?, COLUMNS)
        }
        Verb::Show { agent } => output.one(&client.get(&one(&agent)?).await?, &shown()),
        Verb::Approve { agent, key } => {
            let path = format!("{}/approve", one(&agent)?);
            output.one(&client.post::<Agent>(&path, &AgentApprove { key_sha256: key }).await?, &shown())
        }
        Verb::Reject { agent } => change(agent, "reject").await,
        Verb::Revoke { agent } => change(agent, "revoke").await,
        Verb::Replace { agent, by } => {
            let path = format!("{}/replace", one(&agent)?);
            output.one(&client.post::<Agent>(&path, &AgentReplace { by }).await?, &shown())
        }
        Verb::Token(verb) => token(session, verb).await,
    }
}

async fn token(session: &Session, verb: TokenVerb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    match verb {
        TokenVerb::Create { network, ttl } => {
            let new = NewJoinToken { network, ttl_s: ttl };
            output.one(&client.post("/v1/join-tokens", &new).await?, WITH_SECRET)
        }
        TokenVerb::List => output.list(&client.list::<JoinToken>("/v1/join-tokens").await?, TOKEN),
        TokenVerb::Revoke { token } => {
            client.delete(&format!("/v1/join-tokens/{}", part(&token)?)).await?;
            output.done(&format!("join token {token} revoked"))
        }
    }
}
