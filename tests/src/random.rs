//! Moments and choices that a test draws: the same seed draws the same.

/// A small generator.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// One with the seed of the run, which it prints: that of `PROPTEST_RNG_SEED`, or another one each time.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "whoever reads a failure repeats it with the seed")]
    pub fn of_the_run() -> Self {
        let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(u64::from(std::process::id()));
        println!("seed {seed}");
        Self(seed)
    }

    /// A number below another.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014)
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
