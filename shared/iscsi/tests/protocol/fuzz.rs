//! Random bytes, random PDUs and random login text.

use proptest::prelude::*;

use crate::chap::{SECRET, guarded, response};
use crate::pair::{INITIATOR, Pair, TARGET, config};

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

/// Pieces of a login, most of them good ones: enough of those in the right order are a session.
fn login_text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(format!("InitiatorName={INITIATOR}\0TargetName={TARGET}\0")),
        6 => Just("AuthMethod=CHAP,None\0".to_owned()),
        6 => Just("CHAP_A=5\0".to_owned()),
        1 => Just("AuthMethod=None\0".to_owned()),
        4 => Just("CHAP_N=node\0".to_owned()),
        4 => Just(format!("{}\0", response(SECRET))),
        2 => Just(format!("{}\0", response(b"another secret 16"))),
        2 => Just("CHAP_R=0x\0".to_owned()),
        1 => Just("CHAP_I=1\0CHAP_C=0x00\0".to_owned()),
        1 => Just("SessionType=Discovery\0".to_owned()),
        2 => "[A-Za-z_]{1,8}=[ -~]{0,20}\0",
        1 => "[ -~\0=]{0,20}",
    ]
}

/// Requests of a few pieces each, with their flags: usually those of the security stage.
fn login_requests() -> impl Strategy<Value = Vec<(u8, Vec<String>)>> {
    let flags = prop_oneof![
        8 => prop::sample::select(vec![0x00_u8, 0x81, 0x83]),
        2 => prop::sample::select(vec![0x04, 0x40, 0x44, 0x80, 0x84, 0x87, 0xc1]),
        1 => any::<u8>(),
    ];
    prop::collection::vec((flags, prop::collection::vec(login_text(), 0..4)), 1..7)
}

/// The requests of a good login up to its proof, of which any may be replaced.
fn spoiled_logins() -> impl Strategy<Value = Vec<(u8, Vec<String>)>> {
    let proof = prop::sample::select(vec![
        response(SECRET),
        response(b"another secret 16"),
        "CHAP_R=0x".to_owned(),
        "CHAP_R=0x00000000000000000000000000000000".to_owned(),
    ]);
    (login_requests(), proof, prop::array::uniform3(prop::bool::weighted(0.8))).prop_map(
        |(others, proof, kept)| {
            let names = format!("InitiatorName={INITIATOR}\0TargetName={TARGET}\0");
            let good = [
                (0x00, vec![names, "AuthMethod=CHAP\0".to_owned()]),
                (0x00, vec!["CHAP_A=5\0".to_owned()]),
                (0x83, vec!["CHAP_N=node\0".to_owned(), format!("{proof}\0")]),
            ];
            let mut others = others.into_iter();
            let chosen = good
                .into_iter()
                .zip(kept)
                .filter_map(|(good, kept)| if kept { Some(good) } else { others.next() });
            chosen.collect()
        },
    )
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

proptest! {
    // Many, since they are short, and few come near a session.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn only_the_right_secret_leads_to_a_session(
        requests in prop_oneof![login_requests(), spoiled_logins()],
    ) {
        let mut pair = guarded();
        let mut proved = false;
        for (flags, text) in requests {
            let text = text.concat();
            proved |= text.contains(&response(SECRET));
            let header = pair.login_header(flags);
            pair.send(&header, text.as_bytes());
            if pair.target.established() || !pair.candidates.is_empty() {
                prop_assert!(proved);
                prop_assert_eq!(pair.candidates[0].user.as_deref(), Some("node"));
                break;
            }
        }
    }
}
