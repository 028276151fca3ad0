//! The agents' API, only on the agents' own listeners: `/agent/v1/networks/{network}/…` for whoever speaks for that
//! network, and how an agent comes to.

use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev, web};
use bmi_agent_api::enrol::{
    AUTHORITIES_HEADER, EnrolRequest, RenewRequest, STANDING_HEADER, StandingRequest,
};
use bmi_agent_api::event::{AgentEvent, BATCH_MAX};
use bmi_agent_api::status::StatusSent;
use bmi_api::Code;
use bmi_types::Name;
use futures::future::{Ready, ready};
use serde::Deserialize;

use super::answer::ApiError;
use crate::app::enrolment::{Joined, agent_authorities, agent_enrol, agent_renew, agent_standing};
use crate::app::{App, Desired, Peer, Speaker, agent_events, agent_status, desired_state};

/// The largest body: a status of 5 000 instances, or a whole batch of the longest events.
pub(super) const BODY_MAX: usize = 4 << 20;
/// The largest body of whoever has not proved who it is, or asks for a certificate.
const ENROL_BODY_MAX: usize = 16 << 10;

/// What somebody is told who asks too often.
const TOO_MANY: &str = "too many requests; try again later";

/// The network that the local agent's socket speaks for.
pub(super) struct Served(pub(super) Name);

impl FromRequest for Speaker {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        ready(speaker(request).map_err(Into::into))
    }
}

fn speaker(request: &HttpRequest) -> Result<Speaker, ApiError> {
    if let Some(served) = request.app_data::<web::Data<Served>>() {
        return Ok(Speaker::Local(served.0.clone()));
    }
    let nobody = || ApiError::new(Code::AgentRefused, "a certificate of an agent is needed here");
    let peer = request.conn_data::<Peer>().ok_or_else(nobody)?;
    if let Some(app) = request.app_data::<web::Data<App>>() {
        let too_many = |wait| ApiError::too_many(wait, TOO_MANY);
        app.rate_limit.agent(peer.id.agent).map_err(too_many)?;
    }
    Ok(Speaker::Enrolled(peer.clone()))
}

/// What every listener of agents has.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/agent/v1/networks/{network}")
            .route("/desired", web::get().to(desired))
            .route("/status", web::post().to(status))
            .route("/events", web::post().to(events)),
    );
}

/// What only the one has that agents join by.
pub(super) fn enrolment_routes(config: &mut web::ServiceConfig) {
    let small =
        || web::JsonConfig::default().limit(ENROL_BODY_MAX).error_handler(|error, _| unreadable(&error));
    let enrol = web::resource("/agent/v1/enrol").app_data(small()).route(web::post().to(enrol));
    let renew = web::resource("/agent/v1/renew").app_data(small()).route(web::post().to(renew));
    let standing = web::resource("/agent/v1/standing").app_data(small()).route(web::post().to(standing));
    config
        .service(enrol)
        .service(renew)
        .service(standing)
        .route("/agent/v1/authorities", web::get().to(authorities));
}

/// What is wrong with a body, as a problem. What it holds is not repeated: it may be a secret.
pub(super) fn unreadable(error: &actix_web::error::JsonPayloadError) -> actix_web::Error {
    use actix_web::error::JsonPayloadError::{ContentType, Deserialize, Overflow, OverflowKnownLength};
    let problem = match error {
        Overflow { .. } | OverflowKnownLength { .. } => {
            ApiError::new(Code::TooLarge, "the body is too large")
        }
        ContentType => {
            ApiError::new(Code::UnsupportedMediaType, "a body must have Content-Type: application/json")
        }
        Deserialize(error) if error.is_data() => {
            ApiError::new(Code::Invalid, format!("a field is wrong or missing, at column {}", error.column()))
        }
        _ => ApiError::new(Code::NotJson, "the body is not JSON, or was cut off"),
    };
    problem.into()
}

#[derive(Deserialize)]
struct Known {
    generation: u64,
    #[serde(default)]
    mark: String,
    #[serde(default)]
    wait: u64,
}

async fn desired(
    app: web::Data<App>,
    speaker: Speaker,
    network: web::Path<String>,
    known: web::Query<Known>,
) -> Result<HttpResponse, ApiError> {
    let wait = Duration::from_secs(known.wait);
    let within = |wait| desired_state(&app, &speaker, &network, known.generation, &known.mark, wait);
    let found = match &speaker {
        Speaker::Enrolled(peer) if !wait.is_zero() => {
            let waiting = app.rate_limit.wait(peer.id.agent);
            tokio::select! {
                found = within(wait) => found?,
                () = waiting.over() => within(Duration::ZERO).await?,
            }
        }
        Speaker::Enrolled(_) | Speaker::Local(_) => within(wait).await?,
    };
    let name = HeaderName::from_static(STANDING_HEADER);
    let standing = (name, standing_value(!matches!(found, Desired::StandBy)));
    Ok(match found {
        Desired::State(state) => HttpResponse::Ok().insert_header(standing).json(state),
        Desired::Unchanged | Desired::StandBy => HttpResponse::NotModified().insert_header(standing).finish(),
    })
}

/// What an agent is told of itself: whether it has the network.
fn standing_value(serves: bool) -> HeaderValue {
    HeaderValue::from_static(if serves { "active" } else { "standby" })
}

async fn status(
    app: web::Data<App>,
    speaker: Speaker,
    network: web::Path<String>,
    sent: web::Json<StatusSent>,
) -> Result<HttpResponse, ApiError> {
    let noted = agent_status(&app, &speaker, &network, sent.into_inner()).await?;
    let mut answer = HttpResponse::NoContent();
    answer.insert_header((HeaderName::from_static(STANDING_HEADER), standing_value(noted.serves)));
    if let Ok(mark) = HeaderValue::from_str(&noted.authorities_mark) {
        answer.insert_header((HeaderName::from_static(AUTHORITIES_HEADER), mark));
    }
    Ok(answer.finish())
}

/// An event batch as it is received: one event that is not known here must not cost the others.
#[derive(Deserialize)]
struct Batch {
    events: Vec<serde_json::Value>,
}

async fn events(
    app: web::Data<App>,
    speaker: Speaker,
    network: web::Path<String>,
    batch: web::Json<Batch>,
) -> Result<HttpResponse, ApiError> {
    let sent = batch.into_inner().events;
    if sent.len() > BATCH_MAX {
        return Err(ApiError::new(Code::TooLarge, format!("a batch has at most {BATCH_MAX} events")));
    }
    let sent_count = sent.len();
    let events: Vec<AgentEvent> =
        sent.into_iter().filter_map(|event| serde_json::from_value(event).ok()).collect();
    let unknown = sent_count - events.len();
    agent_events(&app, &speaker, &network, events, unknown).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Counts a request of somebody who has proved nothing.
fn admit(app: &App, request: &HttpRequest) -> Result<(), ApiError> {
    let Some(peer) = request.peer_addr() else { return Ok(()) };
    let too_many = |wait| ApiError::too_many(wait, TOO_MANY);
    app.rate_limit.address(peer.ip()).map_err(too_many)
}

async fn authorities(app: web::Data<App>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    admit(&app, &request)?;
    Ok(HttpResponse::Ok().json(agent_authorities(&app).await?))
}

async fn enrol(
    app: web::Data<App>,
    request: HttpRequest,
    asked: web::Json<EnrolRequest>,
) -> Result<HttpResponse, ApiError> {
    admit(&app, &request)?;
    let asked = asked.into_inner();
    let (network, peer) = (asked.network.clone(), request.peer_addr());
    match agent_enrol(&app, asked).await {
        Ok(Joined::Now(identity)) => Ok(HttpResponse::Ok().json(identity)),
        Ok(Joined::Later(pending)) => Ok(HttpResponse::Accepted().json(pending)),
        Err(error) => {
            tracing::warn!(network.name = %network, ?peer, %error, "somebody could not join");
            Err(error.into())
        }
    }
}

async fn standing(
    app: web::Data<App>,
    request: HttpRequest,
    asked: web::Json<StandingRequest>,
) -> Result<HttpResponse, ApiError> {
    admit(&app, &request)?;
    agent_standing(&app, asked.into_inner()).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn renew(
    app: web::Data<App>,
    speaker: Speaker,
    asked: web::Json<RenewRequest>,
) -> Result<HttpResponse, ApiError> {
    match speaker {
        Speaker::Enrolled(peer) => {
            Ok(HttpResponse::Ok().json(agent_renew(&app, peer, asked.into_inner()).await?))
        }
        Speaker::Local(_) => Err(ApiError::new(Code::AgentRefused, "the local agent has no certificate")),
    }
}
