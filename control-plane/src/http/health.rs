//! Health: is the process alive, and can it do its work.

use actix_web::{HttpResponse, web};
use bmi_api::Code;
use serde_json::json;

use super::answer::{ApiError, no_such_method};
use super::openapi::Health;
use crate::app::App;
use crate::error::AppError;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let alive = web::resource("/healthz").get(alive).default_service(web::to(no_such_method));
    let ready = web::resource("/readyz").get(ready).default_service(web::to(no_such_method));
    config.service(alive).service(ready);
}

/// Says that the process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// Says that the database and the data store answer.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = Health)))]
pub(super) async fn ready(app: web::Data<App>) -> Result<HttpResponse, ApiError> {
    let first = bmi_db::After { id: uuid::Uuid::nil(), limit: 1 };
    app.db
        .system_read(move |tx| Ok::<_, AppError>(bmi_db::project::list(tx, first)?))
        .await
        .map_err(|_| ApiError::new(Code::Unavailable, "the database is not available"))?;
    app.store
        .usage()
        .await
        .map_err(|_| ApiError::new(Code::Unavailable, "the data store is not available"))?;
    Ok(HttpResponse::Ok().json(json!({"status": "ready"})))
}
