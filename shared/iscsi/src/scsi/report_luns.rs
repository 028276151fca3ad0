//! REPORT LUNS (SPC-4 section 6.33). Answered at every LUN, present or not.

use super::{Action, Sense, reply};
use crate::config::TargetConfig;
use crate::wire;

pub fn decode(config: &TargetConfig, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let allocation = wire::u32_at(cdb, 6);
    if allocation < 16 {
        return Err(Sense::invalid_field(6));
    }
    let mut numbers: Vec<u16> = match wire::u8_at(cdb, 2) {
        0x00 | 0x02 => config.units.iter().map(|unit| unit.number).collect(),
        // Well-known logical units: none.
        0x01 => Vec::new(),
        _ => return Err(Sense::invalid_field(2)),
    };
    numbers.sort_unstable();
    let mut data = wire::length(numbers.len() * 8).to_be_bytes().to_vec();
    data.extend_from_slice(&[0; 4]);
    for number in numbers {
        // Peripheral addressing below 256, flat space above (SAM-5 section 4.7).
        let field = if number < 256 { number } else { 0x4000 | number };
        data.extend_from_slice(&field.to_be_bytes());
        data.extend_from_slice(&[0; 6]);
    }
    Ok(reply(data, allocation))
}
