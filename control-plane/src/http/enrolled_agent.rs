//! `/v1/agents`.

use actix_web::{HttpResponse, web};
use bmi_api::{Agent, AgentApprove, AgentReplace, Page};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::idempotency::once;
use super::openapi::{IfMatch, OfNetwork, PageQuery};
use super::request::Request;
use crate::app::agent_replace::agent_replace;
use crate::app::enrolled_agent as app;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let all = web::resource("/v1/agents").get(list).default_service(web::to(no_such_method));
    let one = web::resource("/v1/agents/{agent}").get(show).default_service(web::to(no_such_method));
    let approve = web::resource("/v1/agents/{agent}/approve").post(approve);
    let reject = web::resource("/v1/agents/{agent}/reject").post(reject);
    let revoke = web::resource("/v1/agents/{agent}/revoke").post(revoke);
    let replace = web::resource("/v1/agents/{agent}/replace").post(replace);
    config.service(all).service(one);
    for verb in [approve, reject, revoke, replace] {
        config.service(verb.default_service(web::to(no_such_method)));
    }
}

/// Lists agents, oldest first.
#[utoipa::path(get, path = "/v1/agents", params(PageQuery, OfNetwork), responses((status = 200, body = Page<Agent>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "agents", &["network"])?;
    let network = query.filter("network");
    let items = app::agent_list(&request.app, &request.caller, network, query.after()).await?;
    Ok(query.page(items, |agent| agent.id.uuid())?.respond())
}

/// Shows an agent.
#[utoipa::path(get, path = "/v1/agents/{agent}", responses((status = 200, body = Agent)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let agent = app::agent_show(&request.app, &request.caller, request.path("agent")).await?;
    let version = agent.version;
    Ok(Answer::versioned(agent, version)?.respond())
}

/// Approves the key that waits, when it is the one that is named: it is the agent's from now on.
#[utoipa::path(post, path = "/v1/agents/{agent}/approve", operation_id = "approve", params(IfMatch), request_body = AgentApprove, responses((status = 200, body = Agent)))]
pub(super) async fn approve(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let key_sha256 = fields.required("key_sha256");
        let AgentApprove { key_sha256 } = fields.finish(|| Some(AgentApprove { key_sha256: key_sha256? }))?;
        let (agent, version) = (request.path("agent"), request.if_match);
        let agent = app::agent_approve(&request.app, &request.caller, agent, key_sha256, version).await?;
        let version = agent.version;
        Answer::versioned(agent, version)
    })
    .await
}

/// Rejects the key that waits. The agent keeps the one it has.
#[utoipa::path(post, path = "/v1/agents/{agent}/reject", operation_id = "reject", params(IfMatch), responses((status = 200, body = Agent)))]
pub(super) async fn reject(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        request.no_fields()?;
        let (agent, version) = (request.path("agent"), request.if_match);
        let agent = app::agent_reject(&request.app, &request.caller, agent, version).await?;
        let version = agent.version;
        Answer::versioned(agent, version)
    })
    .await
}

/// Revokes an agent: from its next request on it may say and hear nothing. What it runs goes on.
#[utoipa::path(post, path = "/v1/agents/{agent}/revoke", operation_id = "revoke", params(IfMatch), responses((status = 200, body = Agent)))]
pub(super) async fn revoke(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        request.no_fields()?;
        let (agent, version) = (request.path("agent"), request.if_match);
        let agent = app::agent_revoke(&request.app, &request.caller, agent, version).await?;
        let version = agent.version;
        Answer::versioned(agent, version)
    })
    .await
}

/// Gives an agent's network to the one that stands by: the agent is revoked, whoever has the network's volumes is fenced,
/// and then the other one has it. Answers that one. Whoever is interrupted asks for the same again.
#[utoipa::path(post, path = "/v1/agents/{agent}/replace", operation_id = "replace", params(IfMatch), request_body = AgentReplace, responses((status = 200, body = Agent)))]
pub(super) async fn replace(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let by = fields.optional("by");
        let AgentReplace { by } = fields.finish(|| Some(AgentReplace { by }))?;
        let (agent, version) = (request.path("agent"), request.if_match);
        let agent = agent_replace(&request.app, &request.caller, agent, by, version).await?;
        let version = agent.version;
        Answer::versioned(agent, version)
    })
    .await
}
