//! Who speaks for a network on the agents' API, and whether it still may.
//!
//! What a certificate says was proved when the connection began; whether its holder may speak is looked up for every
//! request, and again while a long one waits: who was revoked meanwhile hears nothing more.
//!
//! Invariant: an agent of one network learns nothing of another, not even that it exists.

use bmi_api::{Code, Network};
use bmi_auth::SpiffeId;
use bmi_db::Tx;
use bmi_db::enrolled_agent::{Record, Standing};
use bmi_types::{Name, Timestamp};

use super::network;
use crate::error::AppError;

/// What the certificate of a connection proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is of.
    pub id: SpiffeId,
    /// Which key holds it.
    pub key_sha256: String,
    /// When it ends, which a connection may outlast.
    pub expires_at: Timestamp,
}

/// Who speaks.
#[derive(Debug, Clone)]
pub enum Speaker {
    /// Whoever may open the socket of the local agent: for this network.
    Local(Name),
    /// An agent that joined.
    Enrolled(Peer),
}

/// Whom a network was opened for.
pub(crate) struct Entered {
    /// The network.
    pub(crate) network: Network,
    /// The agent; nothing for the local one.
    pub(crate) agent: Option<Record>,
}

impl Entered {
    /// Whether it has the network, and does not only wait to take over.
    pub(crate) fn serves(&self) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent.standing == Standing::Active)
    }
}

pub(super) fn refused(detail: impl Into<String>) -> AppError {
    AppError::refused(Code::AgentRefused, detail)
}

/// Refuses an agent that was revoked; and says so when another one has its network.
pub(super) fn not_revoked(tx: &mut Tx<'_>, agent: &Record) -> Result<(), AppError> {
    if agent.standing != Standing::Revoked {
        return Ok(());
    }
    let next = bmi_db::enrolled_agent::of_network(tx, agent.network, Standing::Active)?;
    Err(match next.is_empty() {
        true => refused("this agent was revoked"),
        false => {
            AppError::refused(Code::AgentReplaced, "this agent was revoked, and another one has its network")
        }
    })
}

impl Peer {
    /// The agent, when it still is one and this is its key.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn agent(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<Record, AppError> {
        if self.expires_at <= now {
            return Err(refused("the certificate of this connection has expired"));
        }
        let found = bmi_db::enrolled_agent::find(tx, self.id.agent)?;
        let agent = found.filter(|agent| agent.network == self.id.network);
        let agent = agent.ok_or_else(|| refused("there is no such agent"))?;
        not_revoked(tx, &agent)?;
        let previous = agent.previous_key_sha256.as_ref() == Some(&self.key_sha256)
            && agent.previous_until.is_none_or(|until| now < until);
        if agent.key_sha256 == self.key_sha256 || previous {
            return Ok(agent);
        }
        Err(if self.is_ahead_of(&agent) {
            refused(format!(
                "this certificate is newer than the database, which must have been restored from a backup: the agent's key waits \
                 for approval (`bmi agent approve {} --key {}`)",
                agent.id, self.key_sha256
            ))
        } else {
            refused("this is not the agent's key, or no longer")
        })
    }

    /// Whether the certificate was issued after the newest that the database knows of: a backup was restored, which is
    /// older.
    pub(crate) fn is_ahead_of(&self, agent: &Record) -> bool {
        self.expires_at > agent.certificate_until
    }
}

impl Speaker {
    /// Opens the network of a path, when it is the speaker's. Any other does not exist.
    ///
    /// # Errors
    /// When it is another one, or the speaker may not speak.
    pub(crate) fn enter(&self, tx: &mut Tx<'_>, asked: &str, now: Timestamp) -> Result<Entered, AppError> {
        match self {
            Self::Local(name) if asked == name.as_str() => {
                Ok(Entered { network: network::find(tx, asked)?, agent: None })
            }
            Self::Local(_) => Err(AppError::not_found()),
            Self::Enrolled(peer) => {
                let agent = peer.agent(tx, now)?;
                let network = network::find(tx, &agent.network.to_string())?;
                if asked != network.name.as_str() {
                    return Err(AppError::not_found());
                }
                Ok(Entered { network, agent: Some(agent) })
            }
        }
    }
}
