//! Mode pages (SPC-4 section 7.5, SBC-3 section 6.4): caching, control, informational exceptions. What can be changed
//! is WCE, D_SENSE and SWP; `mode_sense` shows the pages and `mode_select` changes them.

use super::Unit;
use crate::wire;

/// What can be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// WCE: a write may be answered before it is on stable storage.
    pub write_cache: bool,
    /// D_SENSE: sense data have the descriptor format.
    pub descriptor_sense: bool,
    /// SWP: writes are refused.
    pub write_protected: bool,
}

impl Mode {
    /// As after power on.
    pub const fn initial(unit: &Unit) -> Self {
        Self { write_cache: unit.write_cache, descriptor_sense: false, write_protected: false }
    }

    /// What of a unit can be changed. A device without a volatile cache cannot be given one.
    pub const fn changeable(unit: &Unit) -> Self {
        Self { write_cache: unit.write_cache, descriptor_sense: true, write_protected: true }
    }
}

/// A page: its number and what follows its length.
pub type Page = (u8, Vec<u8>);

/// Where what can be changed is: WCE, D_SENSE and SWP.
const WCE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;

/// All pages, in ascending order, as they are.
pub fn pages(mode: Mode) -> [Page; 3] {
    let [caching, mut control, exceptions] = bits(mode);
    // Read cache is on (RCD 0). A task set per nexus (TST 001b), unrestricted reordering, no command is refused for
    // long (BUSY TIMEOUT PERIOD).
    or(&mut control.1, 0, 0x20);
    or(&mut control.1, 1, 0x10);
    wire::put(&mut control.1, 6, &[0xff, 0xff]);
    [caching, control, exceptions]
}

/// All pages, with nothing but what can be changed.
pub fn bits(mode: Mode) -> [Page; 3] {
    let mut caching = vec![0; 18];
    let mut control = vec![0; 10];
    or(&mut caching, 0, if mode.write_cache { WCE } else { 0 });
    or(&mut control, 0, if mode.descriptor_sense { D_SENSE } else { 0 });
    or(&mut control, 2, if mode.write_protected { SWP } else { 0 });
    [(0x08, caching), (0x0a, control), (0x1c, vec![0; 10])]
}

/// What a page says about what can be changed.
pub fn read(number: u8, body: &[u8], mode: &mut Mode) {
    match number {
        0x08 => mode.write_cache = wire::u8_at(body, 0) & WCE != 0,
        0x0a => {
            mode.descriptor_sense = wire::u8_at(body, 0) & D_SENSE != 0;
            mode.write_protected = wire::u8_at(body, 2) & SWP != 0;
        }
        _ => {}
    }
}

fn or(body: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = body.get_mut(at) {
        *byte |= bits;
    }
}
