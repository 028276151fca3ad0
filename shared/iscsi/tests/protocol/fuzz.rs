use proptest::prelude::*;

use crate::pair::{Pair, config};

/// Bytes that look a little like PDUs: a plausible opcode, small lengths, small tags.
fn pdu() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::array::uniform32(any::<u8>()),
        prop::collection::vec(any::<u8>(), 16),
        prop::sample::select(vec![0x00_u8, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x40, 0x41, 0x42, 0x43, 0x44]),
        0..1200_usize,
        0..4_u8,
        any::<bool>(),
    )
        .prop_map(|(head, cdb, opcode, length, itt, known)| {
            let mut bytes = head.to_vec();
            bytes.extend(cdb);
            bytes[0] = opcode;
            bytes[4] = 0;
            bytes[5..8].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            bytes[16..20].copy_from_slice(&[0, 0, 0, itt]);
            if known {
                const OPERATIONS: [u8; 12] =
                    [0x00, 0x12, 0x28, 0x2a, 0x2f, 0x41, 0x42, 0x5a, 0x88, 0x93, 0x9e, 0xa3];
                bytes[32] = OPERATIONS[usize::from(bytes[32]) % OPERATIONS.len()];
                bytes[8..16].fill(0);
                bytes[24..28].copy_from_slice(&3_u32.to_be_bytes());
            }
            bytes.resize(48 + length.next_multiple_of(4), 0x5a);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_and_never_pile_up(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        for mut pair in [Pair::new(config()), Pair::ready(&["InitialR2T=No"])] {
            pair.raw(&bytes);
            prop_assert!(pair.answers.iter().map(|answer| answer.data.len()).sum::<usize>() < 64 * 1024);
        }
    }

    #[test]
    fn plausible_pdus_never_panic_and_work_stays_in_range(
        pdus in prop::collection::vec(pdu(), 1..24),
        cut in 1..700_usize,
    ) {
        // The disk of the pair panics on any work outside of it.
        let mut pair = Pair::ready(&["InitialR2T=No", "ImmediateData=Yes"]);
        for piece in pdus.concat().chunks(cut) {
            pair.raw(piece);
            prop_assert!(pair.held.len() <= 136);
        }
    }
}
