//! What was seen of the target during one input: each thing, and each thing after another.

use std::collections::BTreeSet;

/// Kinds of things that can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    Opcode,
    Reject,
    ScsiStatus,
    Sense,
    LoginStatus,
    TaskManagement,
    Close,
    Work,
    Event,
    Text,
}

#[derive(Debug, Default)]
pub struct Trace {
    features: BTreeSet<u64>,
    last: u64,
}

impl Trace {
    pub fn note(&mut self, kind: Kind, value: u64) {
        let feature = mix((kind as u64) << 32 ^ value);
        self.features.insert(feature);
        self.features.insert(mix(self.last.rotate_left(1) ^ feature));
        self.last = feature;
    }

    pub fn text(&mut self, kind: Kind, value: &str) {
        self.note(kind, hash(value.as_bytes()) & 0xffff_ffff);
    }

    pub fn features(&self) -> impl Iterator<Item = u64> {
        self.features.iter().copied()
    }
}

/// The finalizer of SplitMix64.
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
