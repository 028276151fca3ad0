//! Quotas: what a project may have at most.
//!
//! Everything is counted from live rows, in the transaction that adds to it. Lowering a quota never touches what
//! there is: nothing more is added until there is room again.

use bmi_api::{Code, Quota, QuotaBytes, QuotaCount, QuotaPatch};
use bmi_auth::{Action, Caller};
use bmi_db::quota::{Amounts, Limits};
use bmi_db::{InProject, Tx};
use bmi_types::ByteSize;

use super::{App, if_match, stale};
use crate::error::AppError;

/// Limits; nothing means that there is none.
pub type Defaults = Amounts<Option<u64>>;

/// The limits of a project: those that were set, else the defaults.
pub(crate) fn limits(set: &Amounts<Option<u64>>, defaults: &Defaults) -> Amounts<Option<u64>> {
    Amounts {
        instances: set.instances.or(defaults.instances),
        nodes: set.nodes.or(defaults.nodes),
        images: set.images.or(defaults.images),
        virtual_bytes: set.virtual_bytes.or(defaults.virtual_bytes),
        used_bytes: set.used_bytes.or(defaults.used_bytes),
    }
}

/// Refuses when a project has no room for more of something. Each dimension that is full is named, with its limit and
/// its use.
pub(crate) fn room(
    tx: &mut Tx<'_>,
    defaults: &Defaults,
    project: InProject,
    more: &Amounts<u64>,
) -> Result<(), AppError> {
    let limits = limits(&bmi_db::quota::find(tx, project)?.amounts, defaults);
    let used = bmi_db::quota::used(tx, project.id())?;
    let count = |value: u64| value.to_string();
    let bytes = |value: u64| ByteSize::new(value).to_string();
    type Shown<'a> = &'a dyn Fn(u64) -> String;
    let dimensions: [(&str, Option<u64>, u64, u64, Shown<'_>); 5] = [
        ("instances", limits.instances, used.instances, more.instances, &count),
        ("nodes", limits.nodes, used.nodes, more.nodes, &count),
        ("images", limits.images, used.images, more.images, &count),
        ("virtual_bytes", limits.virtual_bytes, used.virtual_bytes, more.virtual_bytes, &bytes),
        ("used_bytes", limits.used_bytes, used.used_bytes, more.used_bytes, &bytes),
    ];
    let full: Vec<String> = dimensions
        .iter()
        .filter(|(_, limit, used, more, _)| {
            *more > 0 && limit.is_some_and(|limit| used.saturating_add(*more) > limit)
        })
        .map(|(name, limit, used, more, shown)| {
            let limit = limit.unwrap_or_default();
            format!(
                "{name}: the limit is {}, in use are {}, asked for {} more",
                shown(limit),
                shown(*used),
                shown(*more)
            )
        })
        .collect();
    if full.is_empty() { Ok(()) } else { Err(AppError::refused(Code::QuotaExceeded, full.join("; "))) }
}

fn shown(set: &Limits, defaults: &Defaults, used: &Amounts<u64>) -> Quota {
    let limits = limits(&set.amounts, defaults);
    let count = |limit, used, own: Option<u64>| QuotaCount { limit, used, own: own.is_some() };
    let bytes = |limit: Option<u64>, used, own: Option<u64>| QuotaBytes {
        limit: limit.map(ByteSize::new),
        used: ByteSize::new(used),
        own: own.is_some(),
    };
    let own = &set.amounts;
    Quota {
        instances: count(limits.instances, used.instances, own.instances),
        nodes: count(limits.nodes, used.nodes, own.nodes),
        images: count(limits.images, used.images, own.images),
        virtual_bytes: bytes(limits.virtual_bytes, used.virtual_bytes, own.virtual_bytes),
        used_bytes: bytes(limits.used_bytes, used.used_bytes, own.used_bytes),
        version: set.version,
    }
}

/// Shows what a project may have, and has.
pub async fn quota_show(app: &App, caller: &Caller, project: String) -> Result<Quota, AppError> {
    let defaults = app.quota_defaults;
    app.reading(caller, move |access| {
        let place = access.enter(&project, Action::QuotaRead)?;
        let set = bmi_db::quota::find(access, place)?;
        let used = bmi_db::quota::used(access, place.id())?;
        Ok(shown(&set, &defaults, &used))
    })
    .await
}

/// Sets limits of a project. What is there already stays, also when it is more.
pub async fn quota_update(
    app: &App,
    caller: &Caller,
    project: String,
    patch: QuotaPatch,
    version: Option<i64>,
) -> Result<Quota, AppError> {
    let defaults = app.quota_defaults;
    app.changing(caller, move |access| {
        let (found, place) = access.project(&project, Action::QuotaWrite)?;
        let mut set = bmi_db::quota::find(access, place)?;
        if_match(version, set.version)?;
        let bytes = |value: Option<ByteSize>| value.map(ByteSize::bytes);
        let own = &mut set.amounts;
        own.instances = patch.instances.unwrap_or(own.instances);
        own.nodes = patch.nodes.unwrap_or(own.nodes);
        own.images = patch.images.unwrap_or(own.images);
        own.virtual_bytes = patch.virtual_bytes.map_or(own.virtual_bytes, bytes);
        own.used_bytes = patch.used_bytes.map_or(own.used_bytes, bytes);
        if !bmi_db::quota::update(access, place, &set)? {
            return Err(stale(set.version));
        }
        set.version += 1;
        access.did_to("quota", found.id, &found.name, format!("{:?}", set.amounts));
        let used = bmi_db::quota::used(access, place.id())?;
        Ok(shown(&set, &defaults, &used))
    })
    .await
}
