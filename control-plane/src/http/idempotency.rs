//! `Idempotency-Key`: the same request twice has one effect and one answer.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::HeaderName;
use bmi_api::Code;
use bmi_auth::{Action, Caller, Domain};
use bmi_db::idempotency::{self, KEPT_MAX, Scope, Seen};
use bmi_types::{ProjectId, Secret, Timestamp};
use sha2::{Digest, Sha256};

use super::answer::{Answer, ApiError, Outcome};
use super::request::Request;
use crate::app::{Access, App};
use crate::error::AppError;
use crate::sealed::answer_purpose;

/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest key, in characters.
const KEY_MAX: usize = 255;

static HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Runs a POST to its end, also when the caller hangs up meanwhile. With a key, a second run of the same request is
/// answered as the first was.
pub(super) async fn once<F>(
    request: Request,
    run: impl FnOnce(Request) -> F + 'static,
) -> Result<HttpResponse, ApiError>
where
    F: Future<Output = Outcome> + 'static,
{
    // A request future is dropped when its connection breaks; a task of its own is not.
    let task = actix_web::rt::spawn(once_inside(request, run));
    let ended = task.await.map_err(|error| AppError::Defect(format!("a request ended early: {error}")))?;
    ended.map(|answer| answer.respond())
}

async fn once_inside<F>(request: Request, run: impl FnOnce(Request) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    if !request.http.headers().contains_key(&HEADER) {
        return run(request).await;
    }
    // One that cannot be read must not count as absent: the caller relies on it.
    let readable = request.header(&HEADER).filter(|key| {
        !key.is_empty() && key.len() <= KEY_MAX && key.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    });
    let Some(key) = readable.map(str::to_owned) else {
        let detail = format!("Idempotency-Key must have 1 to {KEY_MAX} printable ASCII characters");
        return Err(ApiError::new(Code::BadRequest, detail));
    };
    let scope = Scope {
        caller: request.caller.subject.to_string(),
        method: request.http.method().to_string(),
        path: request.http.path().to_owned(),
        key,
    };
    let purpose = answer_purpose(&scope);
    let hash: String = Sha256::digest(&request.body).iter().map(|byte| format!("{byte:02x}")).collect();
    let app = std::sync::Arc::clone(&request.app);
    let (now, mine) = (Timestamp::now(), hash.clone());
    let forget = Timestamp::from_micros(now.micros() - i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX));
    let seen = app
        .db
        .system_write(move |tx| Ok::<_, AppError>(idempotency::begin(tx, &scope, &mine, now, forget)?))
        .await?;
    let other_body =
        || ApiError::new(Code::IdempotencyKeyReused, "this Idempotency-Key came with another body before");
    let id = match seen {
        Seen::First(id) => id,
        Seen::TooMany => {
            let detail = format!("{KEPT_MAX} of your requests with an Idempotency-Key are kept already");
            return Err(ApiError::too_many(Duration::from_secs(3600), &detail));
        }
        Seen::Done { body_sha256, .. } | Seen::Running { body_sha256 } if body_sha256 != hash => {
            return Err(other_body());
        }
        Seen::Running { .. } => {
            return Err(ApiError::new(
                Code::RequestInProgress,
                "the first request with this key is still running",
            ));
        }
        Seen::Done { answer, decisions, .. } => {
            decided_again(&app, &request.caller, &decisions).await?;
            return kept(&app, &purpose, &answer)?;
        }
    };
    let trace = request.caller.trace.clone();
    let outcome = run(request).await;
    let decided: Vec<(String, String)> =
        trace.decided().into_iter().map(|(action, domain)| (action.to_string(), domain.word())).collect();
    let decisions = serde_json::json!(decided).to_string();
    let kept = match &outcome {
        Ok(answer) if answer.secret => Some(sealed(&app, &purpose, answer)?),
        Ok(answer) => serde_json::to_string(&Kept::Answer(answer.clone())).ok(),
        Err(error) if matches!(error.problem.status, 401 | 403 | 429 | 500..) => None,
        Err(error) => serde_json::to_string(&Kept::Problem((*error.problem).clone())).ok(),
    };
    app.db
        .system_write(move |tx| {
            let written = match kept {
                Some(text) => idempotency::finish(tx, id, &text, &decisions),
                None => idempotency::forget(tx, id),
            };
            Ok::<_, AppError>(written?)
        })
        .await?;
    outcome
}

/// Asks again for every right that the first request was given: the caller may have lost it since.
async fn decided_again(app: &App, caller: &Caller, decisions: &str) -> Result<(), ApiError> {
    let unreadable = || AppError::Defect("kept decisions cannot be read".to_owned());
    let decisions: Vec<(String, String)> = serde_json::from_str(decisions).map_err(|_| unreadable())?;
    for (action, domain) in decisions {
        let action = Action::from_word(&action).ok_or_else(unreadable)?;
        match domain.parse::<ProjectId>() {
            // A project of which the caller has lost sight does not exist for it.
            Ok(_) => {
                let enter = move |access: &mut Access<'_, '_>| access.enter(&domain, action);
                app.reading(caller, enter).await?;
            }
            Err(_) => app.permit(caller, action, Domain::Everywhere).await?,
        }
    }
    Ok(())
}

fn unreadable(error: impl std::fmt::Display) -> AppError {
    AppError::Defect(format!("a kept answer cannot be read: {error}"))
}

/// Reads an answer that was kept. One with a secret is a sealed text and no JSON, as `bmi_db::sealed` finds it.
fn kept(app: &App, purpose: &str, text: &str) -> Result<Outcome, AppError> {
    if !text.starts_with('{') {
        let opened = app.master_key.open(purpose, text)?;
        return Ok(Ok(serde_json::from_str(opened.expose()).map_err(unreadable)?));
    }
    Ok(match serde_json::from_str::<Kept>(text).map_err(unreadable)? {
        Kept::Answer(answer) => Ok(answer),
        Kept::Problem(problem) => Err(problem.into()),
    })
}

/// An answer with a secret, for nobody who reads the database.
fn sealed(app: &App, purpose: &str, answer: &Answer) -> Result<String, AppError> {
    let text = serde_json::to_string(answer).map_err(unreadable)?;
    Ok(app.master_key.seal(purpose, &Secret::new(text))?)
}

/// An answer without a secret, as it is kept.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Answer(Answer),
    Problem(bmi_api::Problem),
}
