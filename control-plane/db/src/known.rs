//! What the store should hold, and what cannot be right, for the reconciler.

use std::collections::BTreeSet;

use bmi_api::{ImageState, InstanceState, OperationState};
use bmi_types::{ImageId, InstanceId, ProjectId, VolumeId};
use diesel::prelude::*;

use crate::key::Key;
use crate::schema::{images, instances, operations};
use crate::{DbError, SystemTx};

/// One instance and its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volumes {
    /// The instance.
    pub instance: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Its boot volume and its config volume.
    pub volumes: [VolumeId; 2],
    /// Whether both must be there now: nothing makes or removes them.
    pub settled: bool,
}

/// Everything that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Every image, and whether it is sealed.
    pub images: BTreeSet<(ProjectId, ImageId, bool)>,
    /// Every instance's volumes.
    pub instances: Vec<Volumes>,
    /// Instances in a state that only an operation may hold, without one.
    pub abandoned: Vec<InstanceId>,
}

/// Reads what is known.
pub fn all(tx: &mut SystemTx<'_>) -> Result<Known, DbError> {
    let images: Vec<(Key, Key, String)> =
        images::table.select((images::project_id, images::id, images::state)).load(tx.sql())?;
    let rows: Vec<(Key, Key, Key, Key, String)> = instances::table
        .select((
            instances::id,
            instances::project_id,
            instances::boot_volume,
            instances::config_volume,
            instances::state,
        ))
        .load(tx.sql())?;
    let settled = [InstanceState::Ready.as_str(), InstanceState::Running.as_str()];
    let mut known = Known {
        images: images
            .into_iter()
            .map(|(project, id, state)| (project.into(), id.into(), state == ImageState::Sealed.as_str()))
            .collect(),
        ..Known::default()
    };
    for (id, project, boot, config, state) in rows {
        known.instances.push(Volumes {
            instance: id.into(),
            project: project.into(),
            volumes: [boot.into(), config.into()],
            settled: settled.contains(&state.as_str()),
        });
    }
    let finished = [OperationState::Succeeded.as_str(), OperationState::Failed.as_str()];
    let working = operations::table.filter(operations::state.ne_all(finished)).select(operations::subject_id);
    let abandoned: Vec<Key> = instances::table
        .filter(instances::state.ne_all(settled))
        .filter(instances::id.ne_all(working))
        .select(instances::id)
        .load(tx.sql())?;
    known.abandoned = abandoned.into_iter().map(Into::into).collect();
    Ok(known)
}
