//! Quotas: what a project may have at most.
//!
//! Everything is counted from live rows, in the transaction that adds to it. Lowering a quota never touches what
//! there is: nothing more is added until there is room again.

use bmi_api::Code;
use bmi_db::quota::Amounts;
use bmi_db::{InProject, Tx};
use bmi_types::ByteSize;

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
