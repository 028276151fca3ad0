//! UNMAP (SBC-3 section 5.26). Everything is checked before anything is given back.

use super::{Action, Range, Sense, Unit};
use crate::wire;

/// The most blocks of one command (VPD page B0h): 512 MiB, quick enough not to hold up others.
pub const UNMAP_BLOCKS_MAX: u32 = 0x0010_0000;

/// The most descriptors of one command (VPD page B0h).
pub const DESCRIPTORS_MAX: u32 = 256;

/// Length of the list's header.
const HEADER: usize = 8;

/// Length of a descriptor.
const DESCRIPTOR: usize = 16;

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    unit.writable()?;
    // ANCHOR is not supported (VPD page B2h).
    if wire::u8_at(cdb, 1) & 1 != 0 {
        return Err(Sense::invalid_field(1));
    }
    match u32::from(wire::u16_at(cdb, 7)) {
        0 => Ok(Action::Nothing),
        length if wire::index(length) < HEADER => Err(Sense::PARAMETER_LIST_LENGTH),
        length => Ok(Action::Unmap(length)),
    }
}

/// The ranges a parameter list names. A descriptor of no blocks names none, wherever it points.
pub fn ranges(unit: &Unit, list: &[u8]) -> Result<Vec<Range>, Sense> {
    let described = usize::from(wire::u16_at(list, 2)) / DESCRIPTOR * DESCRIPTOR;
    let descriptors =
        list.get(HEADER..).and_then(|rest| rest.get(..described)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if descriptors.len() / DESCRIPTOR > wire::index(DESCRIPTORS_MAX) {
        return Err(Sense::invalid_in_list(2));
    }
    let mut total = 0_u64;
    let mut ranges = Vec::new();
    for (number, descriptor) in descriptors.chunks_exact(DESCRIPTOR).enumerate() {
        let (block, blocks) = (wire::u64_at(descriptor, 0), wire::u32_at(descriptor, 8));
        if blocks == 0 {
            continue;
        }
        total += u64::from(blocks);
        if total > u64::from(UNMAP_BLOCKS_MAX) {
            return Err(Sense::invalid_in_list(HEADER + number * DESCRIPTOR + 8));
        }
        ranges.push(unit.range(block, u64::from(blocks))?);
    }
    Ok(ranges)
}
