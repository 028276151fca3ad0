//! Data stores.

use bmi_api::Datastore;
use bmi_auth::Caller;

use super::App;
use super::authorize::{Action, permit};
use crate::error::AppError;

/// Lists the data stores: there is one.
pub async fn datastore_list(app: &App, caller: &Caller) -> Result<Vec<Datastore>, AppError> {
    permit(caller, Action::DatastoreRead)?;
    let usage = app.store.usage().await?;
    Ok(vec![Datastore { kind: app.store.kind().to_owned(), capacity: usage.capacity, used: usage.used }])
}
