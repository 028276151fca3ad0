//! Random numbers that can be had again.

/// `SplitMix64`.
pub struct Random(u64);

impl Random {
    /// From the seed of this run, which is printed, and what it is for.
    pub fn new(purpose: &str) -> Self {
        let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("{purpose}: seed {seed} (repeat with PROPTEST_RNG_SEED={seed})");
        Self(purpose.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))))
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to one less than this.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in so many of a hundred cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Another one, for a thread.
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
