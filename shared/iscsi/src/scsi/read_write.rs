//! READ and WRITE (6), (10), (12), (16) and SYNCHRONIZE CACHE (10), (16) (SBC-3 section 5).

use super::{Action, Range, Sense, Unit};
use crate::config::{READ_MAX, TRANSFER_MAX};
use crate::wire;

/// First block, number of blocks and byte 1 of a CDB of any length.
pub struct Extent {
    pub block: u64,
    pub blocks: u32,
    /// Where in the CDB the number of blocks is.
    pub blocks_at: u16,
    pub flags: u8,
}

/// Reads the fields by the group code of the operation (SPC-4 section 4.2.5.1).
pub fn extent(cdb: &[u8; 16]) -> Extent {
    let flags = wire::u8_at(cdb, 1);
    match wire::u8_at(cdb, 0) >> 5 {
        0 => {
            let block = u64::from(wire::u24_at(cdb, 1) & 0x001f_ffff);
            // 0 means 256 (SBC-3 section 5.10).
            let blocks = match wire::u8_at(cdb, 4) {
                0 => 256,
                blocks => u32::from(blocks),
            };
            Extent { block, blocks, blocks_at: 4, flags: 0 }
        }
        1 | 2 => {
            let (block, blocks) = (u64::from(wire::u32_at(cdb, 2)), u32::from(wire::u16_at(cdb, 7)));
            Extent { block, blocks, blocks_at: 7, flags }
        }
        5 => {
            let (block, blocks) = (u64::from(wire::u32_at(cdb, 2)), wire::u32_at(cdb, 6));
            Extent { block, blocks, blocks_at: 6, flags }
        }
        _ => {
            let (block, blocks) = (wire::u64_at(cdb, 2), wire::u32_at(cdb, 10));
            Extent { block, blocks, blocks_at: 10, flags }
        }
    }
}

/// The range of a command that brings data: no protection information, within the unit, not too long.
pub fn transfer(unit: &Unit, extent: &Extent) -> Result<Range, Sense> {
    bounded(unit, extent, TRANSFER_MAX)
}

fn bounded(unit: &Unit, extent: &Extent, longest: u32) -> Result<Range, Sense> {
    if extent.flags & 0xe0 != 0 {
        return Err(Sense::invalid_field(1));
    }
    let range = unit.range(extent.block, u64::from(extent.blocks))?;
    if range.length > u64::from(longest) {
        return Err(Sense::invalid_field(extent.blocks_at));
    }
    Ok(range)
}

pub fn decode_read(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    Ok(match bounded(unit, &extent(cdb), READ_MAX)? {
        Range { length: 0, .. } => Action::Nothing,
        range => Action::Read(range),
    })
}

pub fn decode_write(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.writable()?;
    let durable = extent.flags & 0x08 != 0;
    Ok(Action::Write { range: transfer(unit, &extent)?, durable })
}

/// IMMED is not taken up: the answer comes when the data is safe.
pub fn decode_flush(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.range(extent.block, u64::from(extent.blocks))?;
    Ok(Action::Flush)
}
