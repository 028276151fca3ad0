//! Every device against an array of bytes.

use bmi_block::{Access, BlockDevice, File, Memory};

/// The longest range of one operation, in bytes.
const LONGEST: u64 = 1_500_000;

/// Does so many random things to a device of zeros, with ranges made of each of these units in turn, and gives what it
/// must hold afterwards.
pub fn behaves_like_an_array(device: &dyn BlockDevice, seed: u64, rounds: usize, units: &[u64]) -> Vec<u8> {
    let size = device.size();
    let mut model = vec![0_u8; usize::try_from(size).unwrap()];
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for (round, unit) in units.iter().cycle().take(rounds).enumerate() {
        let offset = next(size / unit) * unit;
        let length = next(((size - offset) / unit).min(LONGEST / unit) + 1) * unit;
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
        match next(5) {
            0 => {
                device.discard(offset, length).unwrap();
                model[range].fill(0);
            }
            1 => {
                device.write_zeroes(offset, length).unwrap();
                model[range].fill(0);
            }
            2 | 3 => {
                let byte = u8::try_from(next(256)).unwrap();
                device.write(offset, &vec![byte; range.len()]).unwrap();
                model[range].fill(byte);
            }
            _ => {
                let mut read = vec![9; range.len()];
                device.read(offset, &mut read).unwrap();
                assert!(read == model[range], "round {round}");
            }
        }
    }
    device.flush().unwrap();
    let mut all = vec![9; model.len()];
    device.read(0, &mut all).unwrap();
    assert!(all == model);
    assert!(device.write(size, &[1]).is_err());
    assert!(device.read(size - 1, &mut [0; 2]).is_err());
    model
}

#[test]
fn memory_behaves_like_an_array() {
    // Neither a whole number of its pieces, nor of blocks.
    behaves_like_an_array(&Memory::new(3 * 64 * 1024 + 1000), 1, 500, &[1]);
}

#[test]
fn a_file_in_the_page_cache_behaves_like_an_array() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((2 << 20) + 512).unwrap();
    let device = File::open(file.path(), Access::ReadWrite).unwrap();
    let model = behaves_like_an_array(&device, 2, 300, &[512, 1]);
    assert!(std::fs::read(file.path()).unwrap() == model);
}
