//! MODE SELECT (6) and (10) (SPC-4 sections 6.9, 6.10). A list is taken whole or not at all.
//!
//! Deliberately absent: saved pages, and changing size or number of blocks by a block descriptor.

use super::mode::{Mode, bits, pages, read};
use super::{Action, Sense, Unit};
use crate::wire;

/// Which header a parameter list begins with (SPC-4 section 7.5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// 4 bytes.
    Six,
    /// 8 bytes.
    Ten,
}

/// PF: pages are as the standard says. SP, RTD and others are not supported.
const PF: u8 = 0x10;

pub fn decode(cdb: &[u8; 16]) -> Result<Action, Sense> {
    let (header, length) = match wire::u8_at(cdb, 0) {
        0x15 => (Header::Six, u32::from(wire::u8_at(cdb, 4))),
        _ => (Header::Ten, u32::from(wire::u16_at(cdb, 7))),
    };
    if wire::u8_at(cdb, 1) != PF {
        return Err(Sense::invalid_field(1));
    }
    // No list is no fault.
    Ok(if length == 0 { Action::Nothing } else { Action::ModeSelect { header, length } })
}

/// How the pages are set afterwards.
pub fn apply(unit: &Unit, before: Mode, header: Header, list: &[u8]) -> Result<Mode, Sense> {
    let cut = Sense::PARAMETER_LIST_LENGTH;
    let (size, descriptor, long) = match header {
        Header::Six => (4, usize::from(wire::u8_at(list, 3)), false),
        Header::Ten => (8, usize::from(wire::u16_at(list, 6)), wire::u8_at(list, 4) & 1 != 0),
    };
    let rest = list.get(size..).ok_or(cut)?;
    let (descriptor, mut rest) = rest.split_at_checked(descriptor).ok_or(cut)?;
    same_blocks(unit, descriptor, long)
        .map_err(|at| Sense::invalid_in_list(at.map_or(size - 1, |at| size + at)))?;
    let mut mode = before;
    while !rest.is_empty() {
        let at = list.len() - rest.len();
        let [number, length, after @ ..] = rest else { return Err(cut) };
        let (body, after) = after.split_at_checked(usize::from(*length)).ok_or(cut)?;
        one_page(unit, &mut mode, *number, body).map_err(|wrong| Sense::invalid_in_list(at + wrong))?;
        rest = after;
    }
    Ok(mode)
}

/// A page may differ from what it is only in what can be changed. PS and SPF must be 0.
///
/// # Errors
/// The first byte of the page that is wrong.
fn one_page(unit: &Unit, mode: &mut Mode, number: u8, body: &[u8]) -> Result<(), usize> {
    let find = |pages: [super::mode::Page; 3]| pages.into_iter().find(|page| page.0 == number);
    let (Some((_, now)), Some((_, mask))) = (find(pages(*mode)), find(bits(Mode::changeable(unit)))) else {
        return Err(0);
    };
    if body.len() != now.len() {
        return Err(1);
    }
    let differs = |((new, now), mask): ((&u8, &u8), &u8)| (new ^ now) & !mask != 0;
    if let Some(at) = body.iter().zip(&now).zip(&mask).position(differs) {
        return Err(2 + at);
    }
    read(number, body, mode);
    Ok(())
}

/// A block descriptor must say what is (or, for the number of blocks, 0 or all ones: SPC-4 section 7.5.6.2).
///
/// # Errors
/// The byte of it that is wrong, or nothing where its length is.
fn same_blocks(unit: &Unit, descriptor: &[u8], long: bool) -> Result<(), Option<usize>> {
    let (blocks, (size, size_at), most) = match (descriptor.len(), long) {
        (0, _) => return Ok(()),
        (8, false) => {
            let blocks = u64::from(wire::u32_at(descriptor, 0));
            (blocks, (wire::u24_at(descriptor, 5), 5), u64::from(u32::MAX))
        }
        (16, true) => (wire::u64_at(descriptor, 0), (wire::u32_at(descriptor, 12), 12), u64::MAX),
        _ => return Err(None),
    };
    if size != unit.block_size {
        return Err(Some(size_at));
    }
    let fits = blocks == 0 || blocks == most || blocks == unit.blocks;
    if fits { Ok(()) } else { Err(Some(0)) }
}
