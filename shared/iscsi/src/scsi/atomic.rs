//! COMPARE AND WRITE and ORWRITE (16) (SBC-3 sections 5.2, 5.9): what is there and what comes decide together, and
//! nothing else happens to the range in between.

use super::read_write::{extent, transfer};
use super::{Action, Range, Sense, Unit};
use crate::wire;

/// The most blocks of a COMPARE AND WRITE (VPD page B0h MAXIMUM COMPARE AND WRITE LENGTH).
pub const COMPARE_AND_WRITE_BLOCKS_MAX: u8 = 128;

pub fn decode_compare_and_write(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let flags = wire::u8_at(cdb, 1);
    unit.writable()?;
    // WRPROTECT.
    if flags & 0xe0 != 0 {
        return Err(Sense::invalid_field(1));
    }
    let blocks = wire::u8_at(cdb, 13);
    let range = unit.range(wire::u64_at(cdb, 2), u64::from(blocks))?;
    if blocks > COMPARE_AND_WRITE_BLOCKS_MAX {
        return Err(Sense::invalid_field(13));
    }
    Ok(Action::CompareAndWrite { range, durable: flags & 0x08 != 0 })
}

pub fn decode_or_write(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.writable()?;
    Ok(match transfer(unit, &extent)? {
        Range { length: 0, .. } => Action::Nothing,
        range => Action::Or { range, durable: extent.flags & 0x08 != 0 },
    })
}
