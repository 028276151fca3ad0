//! GET LBA STATUS (SBC-3 section 5.7). Where blocks lie is not known here, so all are reported as mapped, which also
//! means "unknown": one descriptor, from the block asked for to the end.

use super::{Action, Sense, Unit, reply};
use crate::wire;

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let block = wire::u64_at(cdb, 2);
    let left = unit.blocks.checked_sub(block).filter(|left| *left > 0).ok_or(Sense::OUT_OF_RANGE)?;
    let mut data = vec![0; 24];
    wire::put(&mut data, 0, &20_u32.to_be_bytes());
    wire::put(&mut data, 8, &block.to_be_bytes());
    wire::put(&mut data, 16, &u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
    Ok(reply(data, wire::u32_at(cdb, 10)))
}
