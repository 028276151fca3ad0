//! Server-sent events (HTML Living Standard, section 9.2): an operation to its end, an instance with its timeline.
//!
//! Each event has a name and one line of JSON. A comment is sent when nothing else is, so that a broken connection is
//! noticed. A stream ends with its subject, when the caller's token or rights have ended, after [`LIFE_MAX`], and when the server stops; a client connects again and
//! is told everything so far. One whose last event was the end of its subject gets 204, on which clients stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::{HttpResponse, web};
use bmi_api::{Code, Instance, Operation, Stage};
use bmi_auth::Caller;
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::answer::{ApiError, no_such_method};
use super::guard::identify;
use super::request::Request;
use crate::app::App;
use crate::app::changes::{Change, Identify, Watch};

/// Streams at once: each holds a connection and looks into the database at every change.
const STREAMS_MAX: usize = 256;
/// Of them, those of one caller: others want to watch too.
const STREAMS_OF_CALLER_MAX: usize = 32;
/// The longest a stream is silent: less than what proxies allow.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The longest a stream lives.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// The id of an event after which nothing comes.
const END: &str = "end";

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How many are open, by who watches.
static OPEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let operation = web::resource("/v1/operations/{operation}/events").get(operation_events);
    let instance = web::resource("/v1/projects/{project}/instances/{instance}/events").get(instance_events);
    config
        .service(operation.default_service(web::to(no_such_method)))
        .service(instance.default_service(web::to(no_such_method)));
}

/// The data of one event, by the event's name.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is streamed")]
pub(super) enum EventData {
    /// `operation`: the operation as it is now.
    Operation(Operation),
    /// `instance`: the instance as it is now.
    Instance(Instance),
    /// `stage`: a new stage of its timeline.
    Stage(Stage),
}

/// Streams an operation: an event at each change, the last one when it has ended.
#[utoipa::path(get, path = "/v1/operations/{operation}/events", responses(
    (status = 200, body = EventData, content_type = "text/event-stream"),
    (status = 204, description = "It has ended, as `Last-Event-ID` says."),
))]
pub(super) async fn operation_events(request: Request) -> Result<HttpResponse, ApiError> {
    let seat = Seat::take(&request.caller)?;
    let app = Arc::clone(&request.app);
    let operation = request.path("operation");
    let watch = Watch::operation(app, request.caller.clone(), again(&request), operation).await?;
    Ok(answer(&request, watch, seat))
}

/// Streams an instance and its timeline: everything so far, then what is new, until it is gone.
#[utoipa::path(get, path = "/v1/projects/{project}/instances/{instance}/events", responses(
    (status = 200, body = EventData, content_type = "text/event-stream"),
    (status = 204, description = "It is gone, as `Last-Event-ID` says."),
))]
pub(super) async fn instance_events(request: Request) -> Result<HttpResponse, ApiError> {
    let seat = Seat::take(&request.caller)?;
    let (project, instance) = (request.path("project"), request.path("instance"));
    let app = Arc::clone(&request.app);
    let watch = Watch::instance(app, request.caller.clone(), again(&request), project, instance).await?;
    Ok(answer(&request, watch, seat))
}

/// One of the streams there may be.
struct Seat {
    holder: String,
}

impl Seat {
    fn take(caller: &Caller) -> Result<Self, ApiError> {
        // A project may have many service accounts, and they count as one.
        let of_project = caller.limits.as_ref().map(|limits| limits.project.to_string());
        let holder = of_project.unwrap_or_else(|| caller.subject.to_string());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (open.values().sum::<usize>(), open.get(&holder).copied().unwrap_or(0));
        for (taken, most, whose) in [(own, STREAMS_OF_CALLER_MAX, " of yours"), (all, STREAMS_MAX, "")] {
            if taken >= most {
                let detail = format!("{most} streams{whose} are open already; poll instead");
                return Err(ApiError::new(Code::Unavailable, detail));
            }
        }
        open.insert(holder.clone(), own + 1);
        Ok(Self { holder })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.holder) {
            *own -= 1;
        }
        open.retain(|_, own| *own > 0);
    }
}

/// Asks again who sent a request.
fn again(request: &Request) -> Identify {
    let (app, http) = (Arc::clone(&request.app), request.http.clone());
    Box::new(move || {
        let (app, http) = (Arc::clone(&app), http.clone());
        Box::pin(async move { identify(&app, &http).await.ok().map(|(caller, _)| caller) })
    })
}

fn answer(request: &Request, watch: Watch, seat: Seat) -> HttpResponse {
    if request.header(&LAST_EVENT_ID) == Some(END) {
        return HttpResponse::NoContent().finish();
    }
    let running =
        Stream { app: Arc::clone(&request.app), watch, until: Instant::now() + LIFE_MAX, _seat: seat };
    let events = stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        let (bytes, more) = running.next().await?;
        Some((Ok::<_, actix_web::Error>(bytes), more.then_some(running)))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(Box::pin(events))
}

struct Stream {
    app: Arc<App>,
    watch: Watch,
    until: Instant,
    _seat: Seat,
}

impl Stream {
    /// What is sent next, and whether there may be more.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        if Instant::now() >= self.until {
            return None;
        }
        let silence = (Instant::now() + SILENCE_MAX).min(self.until);
        let change = tokio::select! {
            () = self.app.wake.stopping.wait() => return None,
            change = timeout_at(silence, self.watch.next()) => change,
        };
        match change {
            Err(_) => Some((Bytes::from_static(b":\n\n"), true)),
            Ok(Ok(Some(change))) => Some(event(&change)),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a stream of events ends early");
                None
            }
        }
    }
}

/// An event as it is sent, and whether more may come after it.
fn event(change: &Change) -> (Bytes, bool) {
    match change {
        Change::Operation(operation) => {
            let over = operation.state.is_final();
            (frame("operation", operation, over.then_some(END)), !over)
        }
        Change::Instance(instance) => (frame("instance", instance, None), true),
        Change::Stage(stage) => (frame("stage", stage, None), true),
        Change::Gone => (frame("gone", &serde_json::json!({}), Some(END)), false),
    }
}

fn frame(name: &str, data: &impl Serialize, id: Option<&str>) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // JSON has no line break outside of strings, and none unescaped in them.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_whatever_is_in_it() {
        let text = frame("stage", &serde_json::json!({"reason": "a\nb\r\ndata: x"}), Some(END));
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(text, "event: stage\nid: end\ndata: {\"reason\":\"a\\nb\\r\\ndata: x\"}\n\n");
    }

    #[test]
    fn seats_are_bounded_for_each_caller_and_for_all_and_are_given_back() {
        let of = |name: usize| {
            let mut caller = Caller::local_admin();
            caller.subject = bmi_auth::Subject::known(format!("user:corp:{name}"));
            let seats: Vec<_> = std::iter::from_fn(|| Seat::take(&caller).ok()).collect();
            seats
        };
        let all: Vec<Vec<Seat>> = (0..10).map(of).collect();
        let taken: Vec<usize> = all.iter().map(Vec::len).collect();
        assert_eq!(taken, [32, 32, 32, 32, 32, 32, 32, 32, 0, 0]);
        drop(all);
        assert_eq!(of(9).len(), STREAMS_OF_CALLER_MAX);
        assert!(OPEN.lock().unwrap().is_empty());
    }
}
