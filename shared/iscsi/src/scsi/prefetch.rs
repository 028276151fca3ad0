//! PRE-FETCH (10), (16) (SBC-3 sections 5.13, 5.14). The kernel reads ahead by itself: the range is checked, and GOOD
//! says that nothing is promised about the cache.

use super::read_write::extent;
use super::{Action, Sense, Unit};

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.range(extent.block, u64::from(extent.blocks))?;
    Ok(Action::Nothing)
}
