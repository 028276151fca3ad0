//! VERIFY (10), (12), (16) (SBC-3 section 5.28): without data it reads, with BYTCHK 01b it compares. WRITE AND VERIFY
//! (10), (12), (16) (section 5.33): what was written is on stable storage, is read back and compared, whatever BYTCHK asks.

use super::read_write::{extent, transfer};
use super::{Action, Range, Sense, Unit};

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    match extent.flags >> 1 & 0x03 {
        0 => {
            if extent.flags & 0xe0 != 0 {
                return Err(Sense::invalid_field(1));
            }
            // No data moves, but it is read: the same bound keeps other sessions waiting only so long.
            Ok(match transfer(unit, &extent)? {
                Range { length: 0, .. } => Action::Nothing,
                range => Action::Check(range),
            })
        }
        1 => Ok(Action::Compare(transfer(unit, &extent)?)),
        _ => Err(Sense::invalid_field(1)),
    }
}

pub fn decode_write(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let extent = extent(cdb);
    unit.writable()?;
    if extent.flags >> 1 & 0x03 > 1 {
        return Err(Sense::invalid_field(1));
    }
    Ok(Action::WriteVerify(transfer(unit, &extent)?))
}
