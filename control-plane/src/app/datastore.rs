//! Data stores.

use bmi_api::Datastore;
use bmi_auth::{Action, Caller, Domain};

use super::App;
use crate::error::AppError;

/// Lists the data stores: there is one.
pub async fn datastore_list(app: &App, caller: &Caller) -> Result<Vec<Datastore>, AppError> {
    app.permit(caller, Action::DatastoreRead, Domain::Everywhere).await?;
    let usage = app.store.usage().await?;
    Ok(vec![Datastore { kind: app.store.kind().to_owned(), capacity: usage.capacity, used: usage.used }])
}
