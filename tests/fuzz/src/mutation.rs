//! How an input is changed. The same numbers give the same changes.

use crate::trace::mix;

/// The longest input.
pub const LENGTH_MAX: usize = 8192;

/// Where in a header lengths, tags and numbers are (RFC 7143 section 11).
const PLACES: [usize; 10] = [0, 1, 4, 5, 8, 16, 20, 24, 36, 40];

/// Numbers at which something changes.
const NUMBERS: [u32; 16] = [
    0,
    1,
    3,
    4,
    47,
    48,
    511,
    512,
    8192,
    65_535,
    65_536,
    262_144,
    0x00ff_ffff,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
];

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `count`, or 0.
    pub const fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { (self.next() % count as u64) as usize }
    }
}

/// A changed copy; a part of `other` may come into it.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(5) {
        change(random, &mut bytes, other);
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len());
    match random.below(10) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        2 => {
            let new: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, new);
        }
        3 => {
            let most = if random.below(4) == 0 { 64 } else { 4 };
            let end = (at + 1 + random.below(most)).min(bytes.len());
            bytes.drain(at..end);
        }
        // What follows is from the other.
        4 => {
            bytes.truncate(at);
            bytes.extend(&other[random.below(other.len())..]);
        }
        // A part of the other comes in.
        5 => {
            let start = random.below(other.len());
            let end = (start + 1 + random.below(96)).min(other.len());
            bytes.splice(at..at, other[start..end].iter().copied());
        }
        6 => {
            let end = (at + 1 + random.below(96)).min(bytes.len());
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        // A number where a header that begins near here may have one.
        7 => {
            let place = PLACES[random.below(PLACES.len())] + if random.below(2) == 0 { 2 } else { at };
            let number = NUMBERS[random.below(NUMBERS.len())].to_be_bytes();
            bytes.iter_mut().skip(place).zip(number).for_each(|(byte, new)| *byte = new);
        }
        8 if random.below(4) == 0 => bytes.truncate(at),
        // A little more or less.
        _ if !bytes.is_empty() => {
            bytes[at] = bytes[at].wrapping_add([1, 255, 4, 252, 16, 240][random.below(6)]);
        }
        _ => bytes.push(random.next() as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_input_can_be_changed_and_the_same_seed_changes_it_alike() {
        for seed in 0..2000 {
            for (input, other) in [(&b""[..], &b""[..]), (b"a", b""), (b"", b"abc"), (&[7; 300], &[8; 9000])]
            {
                let [first, second] = [0, 1].map(|_| mutate(&mut Random::new(seed), input, other));
                assert!(first == second && first.len() <= LENGTH_MAX);
            }
        }
    }
}
