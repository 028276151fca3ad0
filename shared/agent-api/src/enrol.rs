//! How an agent becomes known and stays it: `POST /agent/v1/enrol` with a join token, `POST /agent/v1/renew` with its
//! certificate. `GET /agent/v1/authorities` needs neither: what it answers is public, and the agent believes none of it
//! but the authority whose hash its token has. `POST /agent/v1/standing` is for an agent whose certificate has expired: by its
//! key alone it hears whether another one has its network, and nothing else.
//!
//! A request is answered by 200 with an [`Identity`], by 202 with a [`Pending`], or by a [`Problem`].

use bmi_types::{AgentId, Name, NetworkId, Secret, exposed};
use serde::{Deserialize, Serialize};

/// The header in which the control plane tells the mark of the authorities that it trusts, with every answer to a
/// status: an agent that knows another one renews.
pub const AUTHORITIES_HEADER: &str = "bmi-authorities";
/// The header in which it tells `active` or `standby`, with every answer to a status or to a question for the desired state.
pub const STANDING_HEADER: &str = "bmi-standing";

/// Between the secret of a join token and the hash of the authority.
const PIN: char = '.';

/// A join token, as it is given to an agent: `bmi-join-….<SHA-256 of an authority's public key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What proves that the agent may join.
    pub secret: Secret,
    /// By which the agent knows the control plane.
    pub authority_sha256: String,
}

impl JoinToken {
    /// Reads a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (secret, pin) = text.trim().split_once(PIN)?;
        let hexadecimal = pin.len() == 64 && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
        let whole = hexadecimal && secret.starts_with("bmi-join-");
        whole.then(|| Self { secret: Secret::new(secret.to_owned()), authority_sha256: pin.to_lowercase() })
    }

    /// The whole token.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}{PIN}{}", self.secret.expose(), self.authority_sha256))
    }
}

/// Asks to join a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The secret of the token.
    #[serde(with = "exposed")]
    pub token: Secret,
    /// The network that the agent is configured for.
    pub network: Name,
    /// Who the agent was before, if it was.
    #[serde(default)]
    pub agent: Option<AgentId>,
    /// The request for a certificate (PKCS #10 in PEM). Only its public key counts.
    pub request: String,
    /// Version of the agent.
    pub version: String,
}

/// Asks for the next certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The request for a certificate, with a new key.
    pub request: String,
}

/// Asks whether this agent still has a network, by its key alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingRequest {
    /// The agent.
    pub agent: AgentId,
    /// A request for a certificate (PKCS #10 in PEM) with the key that it has: it proves that, and no certificate is made.
    pub request: String,
}

/// Who an agent is now, and how it knows the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub agent: AgentId,
    /// Its network's id.
    pub network: NetworkId,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Seconds that the certificate lasts from now on.
    pub lasts_s: u64,
    /// Seconds after which it is to be renewed.
    pub renew_after_s: u64,
    /// Whom to trust.
    #[serde(flatten)]
    pub authorities: Authorities,
}

/// The authorities that count.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Authorities {
    /// Their certificates, in PEM.
    pub authorities: Vec<String>,
    /// What this set of them is known by.
    pub authorities_mark: String,
}

/// The key is not the agent's own, and waits for approval: ask the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The agent whose key it is to become.
    pub agent: AgentId,
}

/// Why something was refused, as far as an agent looks at it (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A word that does not change its meaning.
    #[serde(default)]
    pub code: String,
    /// What happened, for people.
    #[serde(default)]
    pub detail: String,
}

/// The code when a join token is not good, or no longer.
pub const JOIN_TOKEN_REFUSED: &str = "join-token-refused";
/// The code when the agent may not speak: revoked, unknown, or not with that key.
pub const AGENT_REFUSED: &str = "agent-refused";

/// The code of the refusal of an agent that was revoked and whose network another one has: it is to take down what it runs,
/// since the same addresses are served elsewhere.
pub const AGENT_REPLACED: &str = "agent-replaced";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let pin = "a1".repeat(32);
        let text = format!("bmi-join-secret.{pin}");
        let token = JoinToken::parse(&format!("{text}\n")).unwrap();
        assert_eq!((token.secret.expose(), token.authority_sha256.as_str()), ("bmi-join-secret", &*pin));
        assert_eq!(token.text().expose(), text);
        for wrong in ["", "bmi-join-secret", &text[..text.len() - 1], &text.replace("join", "sa"), "a.b"] {
            assert_eq!(JoinToken::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{token:?}").contains("secret."));
    }
}
