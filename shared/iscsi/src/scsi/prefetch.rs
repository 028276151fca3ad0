//! PRE-FETCH (10), (16) (SBC-3 sections 5.13, 5.14). The store begins to read ahead, and GOOD says that nothing is promised
//! about the cache. IMMED changes nothing: what is waited for takes no time.

use super::read_write::extent;
use super::{Action, Range, Sense, Unit};
use crate::config::TRANSFER_MAX;

/// The most bytes that are read ahead for one command, as many as one that brings data may have: memory is for
/// everybody. The rest of a longer range is not.
const PREFETCH_MAX: u32 = TRANSFER_MAX;

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    let asked = match u64::from(extent.blocks) {
        // All up to the end.
        0 => unit.blocks.saturating_sub(extent.block),
        blocks => blocks,
    };
    let Range { offset, length } = unit.range(extent.block, asked)?;
    Ok(match length.min(u64::from(PREFETCH_MAX)) {
        0 => Action::Nothing,
        length => Action::Prefetch(Range { offset, length }),
    })
}
