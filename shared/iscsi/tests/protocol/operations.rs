//! Lists of anything an initiator may do, in any order, while the disk answers whenever it likes.

use std::ops::RangeInclusive;

use proptest::prelude::*;

use crate::rig::{BLOCKS_MAX, Data, Rig, Terms, WRITES_MAX};

/// Blocks of most commands: some need no R2T, some several.
const BLOCKS: RangeInclusive<usize> = 1..=64;

/// Blocks of commands of which a few use up the buffers that may be promised.
const MANY_BLOCKS: RangeInclusive<usize> = 4096..=BLOCKS_MAX;

#[derive(Debug, Clone)]
enum Operation {
    Read(usize, bool),
    ReadNothing,
    Write(usize),
    Answer(usize, Data),
    Begin(usize),
    Complete(usize),
    Abort(usize),
    AbortAll(u8),
    Ping(usize),
    Text,
}

fn operation(blocks: RangeInclusive<usize>) -> impl Strategy<Value = Operation> {
    let data = prop_oneof![
        6 => Just(Data::Whole),
        6 => Just(Data::InPieces),
        1 => Just(Data::OtherTag),
        1 => Just(Data::OtherPlace),
        1 => Just(Data::Short),
        1 => Just(Data::Damaged),
    ];
    prop_oneof![
        4 => (BLOCKS, prop::bool::weighted(0.3)).prop_map(|(blocks, immediate)| Operation::Read(blocks, immediate)),
        1 => Just(Operation::ReadNothing),
        8 => blocks.prop_map(Operation::Write),
        12 => (any::<usize>(), data).prop_map(|(which, how)| Operation::Answer(which, how)),
        3 => (1..5_usize).prop_map(Operation::Begin),
        6 => any::<usize>().prop_map(Operation::Complete),
        3 => any::<usize>().prop_map(Operation::Abort),
        1 => prop::sample::select(vec![2, 5]).prop_map(Operation::AbortAll),
        2 => (0..2000_usize).prop_map(Operation::Ping),
        1 => Just(Operation::Text),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let cut = prop_oneof![1..100_usize, 100..20_000_usize];
    (any::<bool>(), any::<bool>(), any::<bool>(), cut).prop_map(
        |(digests, immediate_data, initial_r2t, cut)| Terms {
            digests,
            immediate_data,
            initial_r2t,
            long_bursts: false,
            cut,
        },
    )
}

fn perform(terms: Terms, operations: Vec<Operation>, log_out: bool) {
    let mut rig = Rig::new(terms);
    for operation in operations {
        match operation {
            Operation::Read(blocks, immediate) => rig.read(blocks, immediate),
            Operation::ReadNothing => rig.read_nothing(),
            Operation::Write(blocks) => rig.write(blocks),
            Operation::Answer(which, how) => rig.answer(which, how),
            Operation::Begin(count) => rig.begin(count),
            Operation::Complete(which) => rig.complete(which),
            Operation::Abort(which) => rig.abort(which),
            Operation::AbortAll(function) => rig.abort_all(function),
            Operation::Ping(length) => rig.ping(length),
            Operation::Text => rig.text(),
        }
        rig.nobody_is_forgotten();
    }
    if log_out {
        rig.log_out();
    }
    rig.end();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_each_command_is_answered_once(
        terms in terms(),
        operations in prop::collection::vec(operation(BLOCKS), 1..WRITES_MAX),
        log_out in any::<bool>(),
    ) {
        perform(terms, operations, log_out);
    }
}

proptest! {
    // Each moves up to 256 MiB.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn writes_that_wait_for_buffers_get_their_turn(
        terms in terms(),
        operations in prop::collection::vec(operation(MANY_BLOCKS), WRITES_MAX / 2..WRITES_MAX),
    ) {
        perform(Terms { long_bursts: true, cut: 16_384, ..terms }, operations, false);
    }
}
