//! Vital product data pages (SPC-4 section 7.8, SBC-3 section 6.6).
//!
//! The limits of page B0h are the constants that commands are checked against.

use super::atomic::COMPARE_AND_WRITE_BLOCKS_MAX;
use super::inquiry::NO_UNIT;
use super::unmap::{DESCRIPTORS_MAX, UNMAP_BLOCKS_MAX};
use super::write_same::WRITE_SAME_BLOCKS_MAX;
use super::{Sense, Unit, identity};
use crate::config::{PORTAL_GROUP, TRANSFER_MAX, TargetConfig};
use crate::wire;

/// The pages there are, in ascending order.
const PAGES: [u8; 7] = [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2];

pub fn page(config: &TargetConfig, unit: Option<&Unit>, page: u8) -> Result<Vec<u8>, Sense> {
    let Some(unit) = unit else {
        return if page == 0 { Ok(vec![NO_UNIT, 0, 0, 1, 0]) } else { Err(Sense::invalid_field(2)) };
    };
    let body = match page {
        0x00 => PAGES.to_vec(),
        0x80 => identity::serial(config, unit.number).into_bytes(),
        0x83 => identification(config, unit),
        0x86 => extended_inquiry(),
        0xb0 => block_limits(unit),
        0xb1 => characteristics(),
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin.
        0xb2 => vec![0, 0xe4, 0x02, 0],
        _ => return Err(Sense::invalid_field(2)),
    };
    let mut data = vec![0, page];
    data.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    data.extend_from_slice(&body);
    Ok(data)
}

/// Page 83h: unit by NAA and vendor, target port by name and number, target device by name.
fn identification(config: &TargetConfig, unit: &Unit) -> Vec<u8> {
    let mut page = Vec::new();
    let mut descriptor = |set_and_protocol: u8, kind: u8, name: &[u8]| {
        page.extend_from_slice(&[set_and_protocol, kind, 0, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        page.extend_from_slice(name);
    };
    descriptor(0x01, 0x03, &identity::naa(config, unit.number));
    let vendor = [identity::VENDOR.as_slice(), identity::serial(config, unit.number).as_bytes()].concat();
    descriptor(0x02, 0x01, &vendor);
    // Names in UTF-8, padded to a multiple of 4 with at least one NUL (SPC-4 section 7.8.6.11); protocol 5 is iSCSI.
    let padded = |name: &str| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize((bytes.len() + 4) & !3, 0);
        bytes
    };
    descriptor(0x53, 0x98, &padded(&format!("{},t,0x{PORTAL_GROUP:04x}", config.name)));
    descriptor(0x51, 0x94, &[0, 0, 0, 1]);
    descriptor(0x53, 0xa8, &padded(&config.name));
    page
}

/// Page 86h: SIMPSUP only, no protection, volatile cache is declared by mode page 08h.
fn extended_inquiry() -> Vec<u8> {
    let mut page = vec![0; 60];
    wire::put(&mut page, 1, &[0x01]);
    wire::put(&mut page, 2, &[0x01]);
    page
}

/// Page B0h.
fn block_limits(unit: &Unit) -> Vec<u8> {
    let mut page = vec![0; 60];
    let page_blocks = (4096 / unit.block_size).max(1);
    // WSNZ: WRITE SAME needs a number of blocks.
    wire::put(&mut page, 0, &[0x01, COMPARE_AND_WRITE_BLOCKS_MAX]);
    wire::put(&mut page, 2, &u16::try_from(page_blocks).unwrap_or(1).to_be_bytes());
    wire::put(&mut page, 4, &(TRANSFER_MAX / unit.block_size).to_be_bytes());
    wire::put(&mut page, 8, &(256 * 1024 / unit.block_size).to_be_bytes());
    wire::put(&mut page, 16, &UNMAP_BLOCKS_MAX.to_be_bytes());
    wire::put(&mut page, 20, &DESCRIPTORS_MAX.to_be_bytes());
    wire::put(&mut page, 24, &page_blocks.to_be_bytes());
    wire::put(&mut page, 28, &0x8000_0000_u32.to_be_bytes());
    wire::put(&mut page, 32, &WRITE_SAME_BLOCKS_MAX.to_be_bytes());
    page
}

/// Page B1h: a medium that does not rotate.
fn characteristics() -> Vec<u8> {
    let mut page = vec![0; 60];
    wire::put(&mut page, 0, &1_u16.to_be_bytes());
    page
}
