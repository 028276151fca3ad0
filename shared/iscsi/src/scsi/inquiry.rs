//! INQUIRY, standard data (SPC-4 section 6.6). Pages are in `vpd`.

use super::{Action, Sense, Unit, UnitKind, identity, reply, vpd};
use crate::config::TargetConfig;
use crate::wire;

/// Qualifier 011b, type 1Fh: no unit here and none possible.
pub const NO_UNIT: u8 = 0x7f;

/// SAM-5, SPC-4, SBC-3, iSCSI (SPC-4 section 6.6.2).
const VERSIONS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];

pub fn decode(config: &TargetConfig, unit: Option<&Unit>, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let page = wire::u8_at(cdb, 2);
    let allocation = u32::from(wire::u16_at(cdb, 3));
    match wire::u8_at(cdb, 1) & 0x03 {
        0 if page == 0 => Ok(reply(standard(unit), allocation)),
        1 => Ok(reply(vpd::page(config, unit, page)?, allocation)),
        // A page without EVPD.
        0 => Err(Sense::invalid_field(2)),
        // The obsolete CMDDT.
        _ => Err(Sense::invalid_field(1)),
    }
}

fn standard(unit: Option<&Unit>) -> Vec<u8> {
    let mut data = vec![0; 96];
    let product: &[u8; 16] = match unit.map(|unit| unit.kind) {
        Some(UnitKind::Disk) => b"Boot volume     ",
        Some(UnitKind::Config) => b"Config volume   ",
        None => b"                ",
    };
    // Version SPC-4; response format 2 with HISUP; CMDQUE.
    wire::put(&mut data, 0, &[if unit.is_some() { 0 } else { NO_UNIT }, 0, 0x06, 0x12, 91, 0, 0, 0x02]);
    wire::put(&mut data, 8, identity::VENDOR);
    wire::put(&mut data, 16, product);
    wire::put(&mut data, 32, b"1   ");
    for (version, at) in VERSIONS.iter().zip((58..).step_by(2)) {
        wire::put(&mut data, at, &version.to_be_bytes());
    }
    data
}
