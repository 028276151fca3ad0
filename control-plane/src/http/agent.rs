//! The agents' API: `/agent/v1/networks/{network}/…`, only on the agents' own listener.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use bmi_agent_api::event::{BATCH_MAX, EventBatch};
use bmi_agent_api::status::StatusReport;
use bmi_api::Code;
use bmi_types::Name;
use serde::Deserialize;

use super::answer::ApiError;
use crate::app::{App, agent_events, agent_status, desired_state};
use crate::error::AppError;

/// The largest body: a status of 5 000 instances, or a whole batch of the longest events.
pub(super) const BODY_MAX: usize = 4 << 20;

/// The network that this listener's agent speaks for.
pub(super) struct Served(pub(super) Name);

impl Served {
    /// The network of a path, when it is that one. Any other does not exist here.
    fn only<'a>(&self, network: &'a str) -> Result<&'a str, ApiError> {
        if network == self.0.as_str() { Ok(network) } else { Err(AppError::not_found().into()) }
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/agent/v1/networks/{network}")
            .route("/desired", web::get().to(desired))
            .route("/status", web::post().to(status))
            .route("/events", web::post().to(events)),
    );
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
    served: web::Data<Served>,
    network: web::Path<String>,
    known: web::Query<Known>,
) -> Result<HttpResponse, ApiError> {
    let wait = Duration::from_secs(known.wait);
    let network = served.only(&network)?;
    Ok(match desired_state(&app, network, known.generation, &known.mark, wait).await? {
        Some(state) => HttpResponse::Ok().json(state),
        None => HttpResponse::NotModified().finish(),
    })
}

async fn status(
    app: web::Data<App>,
    served: web::Data<Served>,
    network: web::Path<String>,
    report: web::Json<StatusReport>,
) -> Result<HttpResponse, ApiError> {
    agent_status(&app, served.only(&network)?, report.into_inner()).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn events(
    app: web::Data<App>,
    served: web::Data<Served>,
    network: web::Path<String>,
    batch: web::Json<EventBatch>,
) -> Result<HttpResponse, ApiError> {
    let events = batch.into_inner().events;
    if events.len() > BATCH_MAX {
        return Err(ApiError::new(Code::TooLarge, format!("a batch has at most {BATCH_MAX} events")));
    }
    agent_events(&app, served.only(&network)?, events).await?;
    Ok(HttpResponse::NoContent().finish())
}
