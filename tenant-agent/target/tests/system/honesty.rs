//! Whether the target tells the truth about what is on the disk: FUA, SYNCHRONIZE CACHE and the write-cache bit.
//!
//! `writes` knows every write that was sent and what was answered to it; `load` sends them, many at once; `store` is a
//! disk that forgets at a power loss what was not flushed, and `mount` makes a file of it. The seed is printed and is
//! `PROPTEST_RNG_SEED`; `BMI_FULL=1` does many more rounds.

mod kill;
mod lies;
mod load;
mod look;
mod mount;
mod power;
mod random;
mod reset;
mod store;
mod writes;

/// Logical blocks of the disk: few, so that writes meet.
const BLOCKS: u64 = 1024;

/// How many rounds, each with an end of its own.
fn rounds(few: u64) -> u64 {
    if std::env::var_os("BMI_FULL").is_some() { few * 20 } else { few }
}
