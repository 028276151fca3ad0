//! Lists of anything an initiator may do, in any order, while the disk answers whenever it likes.

use proptest::prelude::*;

use crate::rig::{BLOCKS_MAX, Data, Rig};

/// As many as have blocks of their own on the disk of 4096 blocks.
const OPERATIONS_MAX: usize = 4096 / BLOCKS_MAX;

#[derive(Debug, Clone)]
enum Operation {
    Read(usize),
    ReadNothing,
    Write(usize),
    Answer(usize, Data),
    Complete(usize),
    Abort(usize),
    AbortAll(u8),
    Ping(usize),
    Text,
}

fn operation() -> impl Strategy<Value = Operation> {
    let data = prop_oneof![
        6 => Just(Data::Whole),
        6 => Just(Data::InPieces),
        1 => Just(Data::OtherTag),
        1 => Just(Data::OtherPlace),
        1 => Just(Data::Short),
        1 => Just(Data::Damaged),
    ];
    prop_oneof![
        4 => (1..=BLOCKS_MAX).prop_map(Operation::Read),
        1 => Just(Operation::ReadNothing),
        8 => (1..=BLOCKS_MAX).prop_map(Operation::Write),
        12 => (any::<usize>(), data).prop_map(|(which, how)| Operation::Answer(which, how)),
        6 => any::<usize>().prop_map(Operation::Complete),
        3 => any::<usize>().prop_map(Operation::Abort),
        1 => prop::sample::select(vec![2, 5]).prop_map(Operation::AbortAll),
        2 => (0..2000_usize).prop_map(Operation::Ping),
        1 => Just(Operation::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_each_command_is_answered_once(
        operations in prop::collection::vec(operation(), 1..OPERATIONS_MAX),
        digests in any::<bool>(),
        immediate_data in any::<bool>(),
        initial_r2t in any::<bool>(),
        log_out in any::<bool>(),
        cut in prop_oneof![1..100_usize, 100..20_000_usize],
    ) {
        let mut rig = Rig::new(digests, immediate_data, initial_r2t, cut);
        for operation in operations {
            match operation {
                Operation::Read(blocks) => rig.read(blocks),
                Operation::ReadNothing => rig.read_nothing(),
                Operation::Write(blocks) => rig.write(blocks),
                Operation::Answer(which, how) => rig.answer(which, how),
                Operation::Complete(which) => rig.complete(which),
                Operation::Abort(which) => rig.abort(which),
                Operation::AbortAll(function) => rig.abort_all(function),
                Operation::Ping(length) => rig.ping(length),
                Operation::Text => rig.text(),
            }
        }
        if log_out {
            rig.log_out();
        }
        rig.end();
    }
}
