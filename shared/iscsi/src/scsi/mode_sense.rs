//! MODE SENSE (6) and (10) (SPC-4 sections 6.11, 6.12).

use super::mode::{Mode, bits, pages};
use super::{Action, Sense, Unit, reply};
use crate::wire;

pub fn decode(unit: &Unit, mode: Mode, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let ten = wire::u8_at(cdb, 0) == 0x5a;
    let (control, page) = (wire::u8_at(cdb, 2) >> 6, wire::u8_at(cdb, 2) & 0x3f);
    let subpage = wire::u8_at(cdb, 3);
    if !matches!((page, subpage), (_, 0) | (0x3f, 0xff)) {
        return Err(Sense::invalid_field(3));
    }
    let shown = match control {
        0 => pages(mode),
        1 => bits(Mode::changeable(unit)),
        2 => pages(Mode::initial(unit)),
        _ => return Err(Sense::NO_SAVED_PARAMETERS),
    };
    let mut bodies = Vec::new();
    for (number, body) in shown.iter().filter(|(number, _)| page == *number || page == 0x3f) {
        bodies.extend_from_slice(&[*number, u8::try_from(body.len()).unwrap_or(0)]);
        bodies.extend_from_slice(body);
    }
    if bodies.is_empty() {
        return Err(Sense::invalid_field(2));
    }
    let descriptor =
        if wire::u8_at(cdb, 1) & 0x08 != 0 { Vec::new() } else { block_descriptor(unit, cdb, ten) };
    // WP, and DPOFUA.
    let device = if unit.read_only || mode.write_protected { 0x90 } else { 0x10 };
    let rest = descriptor.len() + bodies.len();
    let mut data = if ten {
        let long = u8::from(descriptor.len() == 16);
        let [high, low] = u16::try_from(rest + 6).unwrap_or(u16::MAX).to_be_bytes();
        vec![high, low, 0, device, long, 0, 0, u8::try_from(descriptor.len()).unwrap_or(0)]
    } else {
        let length = u8::try_from(rest + 3).unwrap_or(u8::MAX);
        vec![length, 0, device, u8::try_from(descriptor.len()).unwrap_or(0)]
    };
    data.extend_from_slice(&descriptor);
    data.extend_from_slice(&bodies);
    let allocation = if ten { u32::from(wire::u16_at(cdb, 7)) } else { u32::from(wire::u8_at(cdb, 4)) };
    Ok(reply(data, allocation))
}

fn block_descriptor(unit: &Unit, cdb: &[u8; 16], ten: bool) -> Vec<u8> {
    // LLBAA: eight-byte number of blocks.
    if ten && wire::u8_at(cdb, 1) & 0x10 != 0 {
        let mut long = unit.blocks.to_be_bytes().to_vec();
        long.extend_from_slice(&[0; 4]);
        long.extend_from_slice(&unit.block_size.to_be_bytes());
        return long;
    }
    let mut short = u32::try_from(unit.blocks).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    short.extend_from_slice(&unit.block_size.to_be_bytes());
    short
}
