//! READ CAPACITY (10) and (16) (SBC-3 sections 5.15, 5.16).

use super::{Action, Sense, Unit, reply};
use crate::wire;

pub fn decode_10(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    // An address without PMI is a fault (SBC-3 section 5.15.1).
    if wire::u8_at(cdb, 8) & 1 == 0 && wire::u32_at(cdb, 2) != 0 {
        return Err(Sense::invalid_field(2));
    }
    // The last block, not the number of blocks; all ones sends the initiator to READ CAPACITY (16).
    let last = u32::try_from(unit.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut data = last.to_be_bytes().to_vec();
    data.extend_from_slice(&unit.block_size.to_be_bytes());
    Ok(Action::Reply(data))
}

pub fn decode_16(unit: &Unit, cdb: &[u8; 16]) -> Action {
    let mut data = vec![0; 32];
    wire::put(&mut data, 0, &unit.blocks.saturating_sub(1).to_be_bytes());
    wire::put(&mut data, 8, &unit.block_size.to_be_bytes());
    // Logical blocks per physical block, as a power of two: pages of 4 KiB.
    let exponent = (4096 / unit.block_size).max(1).trailing_zeros();
    wire::put(&mut data, 13, &[u8::try_from(exponent).unwrap_or(0)]);
    // LBPME and LBPRZ: unmapped blocks read as zeros.
    wire::put(&mut data, 14, &[0xc0]);
    reply(data, wire::u32_at(cdb, 10))
}
