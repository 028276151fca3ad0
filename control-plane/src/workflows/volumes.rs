//! Boot volume and config volume of an instance: made and removed.

use bmi_db::instance::Record;
use bmi_drivers::config_volume::ConfigVolume;
use bmi_drivers::store::Place;
use bmi_workflow::{Observed, StepError};

use super::context::{Context, app_error, gone, store_error};
use crate::app::image::place as image_place;
use crate::app::instance::{SealedUserData, user_data_purpose};
use crate::error::AppError;

fn places(record: &Record) -> [Place; 2] {
    let project = record.instance.project;
    [record.boot_volume, record.config_volume].map(|volume| Place { project, volume })
}

/// Whether both volumes are there, whole, and can be reached.
pub(super) async fn both_exist(context: &Context, record: &Record) -> Result<Observed, StepError> {
    for place in places(record) {
        if !context.app.store.volume_exists(place).await.map_err(|error| store_error(&error))? {
            return Ok(Observed::NotDone);
        }
    }
    let [boot, _] = places(record);
    let reached = context.app.store.access_exists(boot).await.map_err(|error| store_error(&error))?;
    Ok(if reached { Observed::Done } else { Observed::NotDone })
}

/// Whether neither volume is there.
pub(super) async fn none_exists(context: &Context, record: &Record) -> Result<Observed, StepError> {
    for place in places(record) {
        if context.app.store.volume_exists(place).await.map_err(|error| store_error(&error))? {
            return Ok(Observed::NotDone);
        }
    }
    Ok(Observed::Done)
}

/// Clones the image, writes the config volume, and makes what their server needs to reach them.
pub(super) async fn make(context: &Context, record: &Record) -> Result<(), StepError> {
    let (store, instance) = (&context.app.store, &record.instance);
    let [boot, config] = places(record);
    let image = instance.image;
    let owner = context.app.db.system_read(move |tx| Ok::<_, AppError>(bmi_db::image::owner(tx, image)?));
    let owner = owner.await.map_err(app_error)?;
    let owner = owner.ok_or_else(|| gone("image"))?;
    let golden = image_place(image, owner);
    store.volume_clone(golden, boot).await.map_err(|error| store_error(&error))?;
    // It appears whole or not at all, and its access may have been made for this very one.
    if !store.volume_exists(config).await.map_err(|error| store_error(&error))? {
        let content = config_content(context, record)?;
        store.volume_put(config, content.into()).await.map_err(|error| store_error(&error))?;
    }
    store.access_ensure(boot, config).await.map_err(|error| store_error(&error))
}

/// The config volume's blocks.
fn config_content(context: &Context, record: &Record) -> Result<Vec<u8>, StepError> {
    let instance = &record.instance;
    let sealed = context
        .app
        .master_key
        .open(&user_data_purpose(instance.id), &record.user_data_sealed)
        .map_err(|error| StepError::never(error.to_string()))?;
    let user_data: SealedUserData = serde_json::from_str(sealed.expose())
        .map_err(|_| StepError::never("the sealed user data cannot be read"))?;
    ConfigVolume {
        instance: instance.id,
        hostname: &instance.name,
        ssh_keys: &user_data.ssh_keys,
        user_data: user_data.user_data.as_deref(),
    }
    .build()
    .map_err(|error| StepError::never(format!("the config volume cannot be made: {error}")))
}

/// Removes both volumes.
pub(super) async fn remove(context: &Context, record: &Record) -> Result<(), StepError> {
    for place in places(record) {
        context.app.store.volume_remove(place).await.map_err(|error| store_error(&error))?;
    }
    Ok(())
}
