//! GET LBA STATUS (SBC-3 section 5.7): one descriptor, from the block asked for to where its provisioning changes.

use super::{Action, Range, Sense, Unit};
use crate::wire;

pub fn decode(unit: &Unit, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let Range { offset, .. } = unit.range(wire::u64_at(cdb, 2), 1)?;
    Ok(Action::LbaStatus { offset, allocation: wire::u32_at(cdb, 10) })
}

/// The answer, once the store has said how the bytes from `offset` on are kept. A block that is only partly a hole
/// counts as mapped.
pub fn answer(unit: &Unit, offset: u64, length: u64, allocated: bool) -> Vec<u8> {
    let size = u64::from(unit.block_size);
    let block = offset / size;
    let whole = length / size;
    let (blocks, mapped) = if whole == 0 { (1, true) } else { (whole, allocated) };
    let blocks = blocks.min(unit.blocks.saturating_sub(block));
    let mut data = vec![0; 24];
    wire::put(&mut data, 0, &20_u32.to_be_bytes());
    wire::put(&mut data, 8, &block.to_be_bytes());
    wire::put(&mut data, 16, &u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());
    // PROVISIONING STATUS: mapped, or deallocated.
    wire::put(&mut data, 20, &[u8::from(!mapped)]);
    data
}
