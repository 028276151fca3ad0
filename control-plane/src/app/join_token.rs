//! Join tokens: each lets one agent join one network, once, within an hour.
//!
//! Invariants: a token is shown once and kept by its hash; it carries the hash of the authority by which the agent knows
//! the control plane, so that whoever is in between cannot pretend to be it.

use std::time::Duration;

use bmi_agent_api::enrol;
use bmi_api::{Code, Fault, JoinToken, JoinTokenWithSecret, NewJoinToken};
use bmi_auth::secret_token::{self, TokenKind};
use bmi_auth::{Action, Caller};
use bmi_db::{After, Reference, authority, join_token as db};
use bmi_types::{JoinTokenId, Timestamp};

use super::App;
use super::authority::no_agents;
use crate::error::AppError;

/// The longest that a token lasts, in seconds.
pub const TTL_MAX_S: u32 = 3600;
/// The most tokens of a network that can be used.
const TOKENS_MAX: i64 = 100;

/// Makes a token.
pub async fn join_token_create(
    app: &App,
    caller: &Caller,
    new: NewJoinToken,
) -> Result<JoinTokenWithSecret, AppError> {
    let secret =
        secret_token::generate(TokenKind::Join).map_err(|error| AppError::Defect(error.to_string()))?;
    let sha256 = secret_token::hash(secret.expose());
    let enrolling = app.enrolling.is_some();
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::AgentEnrol)?;
        // The oldest issues what the listener shows.
        let authority = authority::list(access)?.into_iter().next().filter(|_| enrolling);
        let authority = authority.ok_or_else(no_agents)?;
        let none = || {
            let detail = format!("there is no network `{}`", new.network);
            AppError::invalid(vec![Fault { field: "network".to_owned(), detail }])
        };
        let reference = Reference::parse(&new.network).ok_or_else(none)?;
        let network = bmi_db::network::find(access, &reference)?.ok_or_else(none)?;
        let now = Timestamp::now();
        if db::count(access, network.id, now)? >= TOKENS_MAX {
            let detail = format!("the network has {TOKENS_MAX} join tokens that can be used; revoke some");
            return Err(AppError::refused(Code::WrongState, detail));
        }
        let token = JoinToken {
            id: JoinTokenId::generate(),
            network: network.id,
            created_by: access.caller().subject.to_string(),
            created_at: now,
            expires_at: now.plus(Duration::from_secs(new.ttl_s.into())),
            used_at: None,
            agent: None,
        };
        db::insert(access, &token, &sha256, now)?;
        access.did("join-token", token.id, &network.name);
        let whole = enrol::JoinToken { secret, authority_sha256: authority.spki_sha256 };
        Ok(JoinTokenWithSecret { join_token: token, token: whole.text() })
    })
    .await
}

/// Lists tokens, oldest first.
pub async fn join_token_list(app: &App, caller: &Caller, after: After) -> Result<Vec<JoinToken>, AppError> {
    app.reading(caller, move |access| {
        access.permit_everywhere(Action::AgentRead)?;
        Ok(db::list(access, after)?)
    })
    .await
}

/// Ends a token at once. An agent that joined with it stays.
pub async fn join_token_revoke(app: &App, caller: &Caller, token: String) -> Result<(), AppError> {
    app.changing(caller, move |access| {
        access.permit_everywhere(Action::AgentEnrol)?;
        let id: JoinTokenId = token.parse().map_err(|_| AppError::not_found())?;
        let token = db::find(access, id)?.ok_or_else(AppError::not_found)?;
        db::delete(access, id)?;
        access.did("join-token", id, token.network);
        Ok(())
    })
    .await
}
