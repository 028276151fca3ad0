//! WRITE SAME (10), (16) (SBC-3 sections 5.36, 5.37), with UNMAP and NDOB.

use super::read_write::extent;
use super::{Action, Sense, Unit};
use crate::wire;

/// The most blocks of one command (VPD page B0h MAXIMUM WRITE SAME LENGTH).
pub const WRITE_SAME_BLOCKS_MAX: u64 = 0xffff;

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.writable()?;
    let unmap = extent.flags & 0x08 != 0;
    let no_data = wire::u8_at(cdb, 0) == 0x93 && extent.flags & 0x01 != 0;
    // WRPROTECT, ANCHOR, and the obsolete PBDATA and LBDATA.
    if extent.flags & 0xf6 != 0 {
        return Err(Sense::invalid_field(1));
    }
    let range = unit.range(extent.block, u64::from(extent.blocks))?;
    // WSNZ: 0 does not mean "to the end".
    if extent.blocks == 0 || u64::from(extent.blocks) > WRITE_SAME_BLOCKS_MAX {
        return Err(Sense::invalid_field(extent.blocks_at));
    }
    if no_data {
        return Ok(Action::Zero { range, unmap });
    }
    Ok(Action::WriteSame { range, block: unit.block_size, unmap })
}
