//! Whether the target tells the truth about what is on the disk: FUA, SYNCHRONIZE CACHE and the write-cache bit.
//!
//! `writes` knows every write that was sent and what was answered to it; `load` sends them, many at once; `store` is a
//! disk that forgets at a power loss what was not flushed, and `mount` makes a file of it. The seed is printed and is
//! `PROPTEST_RNG_SEED`; `BMI_FULL=1` does many more rounds.

mod kill;
mod lies;
mod load;
mod mount;
mod power;
mod random;
mod reset;
mod store;
mod writes;

use crate::target::Target;
use crate::wire::Wire;
use writes::{Loss, Writes};

/// Logical blocks of the disk: few, so that writes meet.
const BLOCKS: u64 = 1024;

/// How many rounds, each with an end of its own.
fn rounds(few: u64) -> u64 {
    if std::env::var_os("BMI_FULL").is_some() { few * 20 } else { few }
}

/// What is on the disk, by way of the target.
fn read_all(target: &Target, block_size: usize) -> Vec<u8> {
    let mut wire = Wire::log_in(target.address, load::KEYS);
    let size = BLOCKS as usize * block_size;
    let cdb = load::sixteen(0x88, 0, 0, BLOCKS);
    let read = wire.command(2, &cdb, 0xc1, size as u32);
    wire.send(&read);
    let mut all = Vec::new();
    loop {
        let answer = wire.answer().expect("the disk is read");
        all.extend(&answer.data);
        // The last has the status with it (RFC 7143 section 11.7.3), or there is a response.
        if answer.header[1] & 1 != 0 || answer.header[0] == 0x21 {
            assert_eq!((answer.header[3], all.len()), (0, size), "read");
            return all;
        }
    }
}

/// Compares the disk with everything that was said of it.
fn check(target: &Target, writes: &mut Writes, loss: Loss) {
    let faults = writes.observe(&read_all(target, writes.block_size()), loss);
    assert!(
        faults.is_empty(),
        "{} faults after the loss of {loss:?}: {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
}
