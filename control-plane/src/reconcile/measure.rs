//! How many bytes images and instances really take, for the quotas.
//!
//! What was measured is as old as the last look: a quota of bytes really used is exceeded at most by what was written
//! since.

use std::collections::BTreeMap;

use bmi_db::known::Known;
use bmi_drivers::store::{Item, ItemKind, Place, StoreError};
use bmi_types::{ImageId, InstanceId, VolumeId};

use crate::app::App;
use crate::error::AppError;

/// What was measured last, so that only what changed is written.
#[derive(Debug, Default)]
pub(super) struct Measured {
    images: BTreeMap<ImageId, u64>,
    instances: BTreeMap<InstanceId, u64>,
}

/// Measures everything that is known.
pub(super) async fn measure(app: &App, known: &Known, last: &mut Measured) -> Result<(), AppError> {
    let mut now = Measured::default();
    for (project, id, _) in &known.images {
        let place = Place { project: *project, volume: VolumeId::from(id.uuid()) };
        if let Some(used) = used(app, Item { kind: ItemKind::Image, place }).await? {
            now.images.insert(*id, used);
        }
    }
    for instance in &known.instances {
        let mut sum = Some(0_u64);
        for volume in instance.volumes {
            let place = Place { project: instance.project, volume };
            let own = used(app, Item { kind: ItemKind::Volume, place }).await?;
            sum = sum.zip(own).map(|(sum, own)| sum.saturating_add(own));
        }
        if let Some(sum) = sum {
            now.instances.insert(instance.instance, sum);
        }
    }
    let images = now.images.iter().filter(|(id, used)| last.images.get(id) != Some(used));
    let images: Vec<(ImageId, u64)> = images.map(|(id, used)| (*id, *used)).collect();
    let instances = now.instances.iter().filter(|(id, used)| last.instances.get(id) != Some(used));
    let instances: Vec<(InstanceId, u64)> = instances.map(|(id, used)| (*id, *used)).collect();
    if !images.is_empty() || !instances.is_empty() {
        app.db
            .system_write(move |tx| {
                for (id, used) in images {
                    bmi_db::quota::image_used(tx, id, used)?;
                }
                for (id, used) in instances {
                    bmi_db::quota::instance_used(tx, id, used)?;
                }
                Ok::<_, AppError>(())
            })
            .await?;
    }
    *last = now;
    Ok(())
}

/// How many bytes an item takes. Nothing when it was tampered with: whoever did that must not keep others from being
/// measured.
async fn used(app: &App, item: Item) -> Result<Option<u64>, StoreError> {
    match app.store.item_used(item).await {
        Ok(used) => Ok(Some(used.bytes())),
        Err(StoreError::Foreign(reason)) => {
            tracing::warn!(place = %item.place, reason, "it is not measured");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
