//! Looks at a whole disk by way of its target.

use crate::target::Target;
use crate::wire::Wire;

use super::load;
use super::writes::{Loss, Writes};

/// What is on the disk, by way of the target.
fn read_all(target: &Target, blocks: u64, block_size: usize) -> Vec<u8> {
    let mut wire = Wire::log_in(target.address, load::KEYS);
    let size = blocks as usize * block_size;
    let cdb = load::sixteen(0x88, 0, 0, blocks);
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
pub fn check(target: &Target, writes: &mut Writes, loss: Loss) {
    let faults = writes.observe(&read_all(target, writes.blocks(), writes.block_size()), loss);
    assert!(
        faults.is_empty(),
        "{} faults after the loss of {loss:?}: {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
}
