//! The checker is told lies, and finds each. What is true passes.

use super::writes::{Answer, Content, Fault, Id, Kind, Loss, Writes};

const SIZE: usize = 512;

/// A disk as it is, beside what is known of it.
struct Bench {
    writes: Writes,
    disk: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self { writes: Writes::new(7, 8, SIZE), disk: vec![0; 8 * SIZE] }
    }

    /// A write of block 2 that was answered.
    fn write(&mut self, forced: bool) -> Id {
        let id = self.writes.send(2..3, Kind::Each, forced);
        self.writes.answered(id, Answer::Good);
        id
    }

    fn flush(&mut self) {
        let sent = self.writes.flush();
        self.writes.flushed(sent, Answer::Good);
    }

    /// The disk holds this write.
    fn holds(&mut self, id: Id) -> &mut Self {
        let data = self.writes.data(id);
        self.disk[2 * SIZE..3 * SIZE].copy_from_slice(&data);
        self
    }

    fn zeros(&mut self) -> &mut Self {
        self.disk.fill(0);
        self
    }

    fn after(&mut self, loss: Loss) -> Vec<Fault> {
        self.writes.observe(&self.disk, loss)
    }
}

fn is_old(faults: &[Fault]) -> bool {
    matches!(faults, [Fault::Old { block: 2, .. }])
}

#[test]
fn a_lost_acknowledged_write_is_found_after_a_kill_and_forgiven_after_a_power_loss() {
    let mut bench = Bench::new();
    bench.write(false);
    assert!(is_old(&bench.zeros().after(Loss::Process)));
    let mut bench = Bench::new();
    bench.write(false);
    assert_eq!(bench.zeros().after(Loss::Power), []);
}

#[test]
fn a_lost_durable_write_is_found() {
    let mut forced = Bench::new();
    forced.write(true);
    assert!(is_old(&forced.zeros().after(Loss::Power)));
    let mut flushed = Bench::new();
    flushed.write(false);
    flushed.flush();
    assert!(is_old(&flushed.zeros().after(Loss::Power)));
    let mut through = Bench::new();
    through.writes.write_through = true;
    through.write(false);
    assert!(is_old(&through.zeros().after(Loss::Power)));
}

#[test]
fn an_old_value_is_found() {
    let mut bench = Bench::new();
    let (old, new) = (bench.write(true), bench.write(true));
    assert_eq!(
        bench.holds(old).after(Loss::Power),
        [Fault::Old { block: 2, found: Content::Each { number: 1 }, wanted: Content::Each { number: 2 } }]
    );
    assert_eq!(bench.holds(new).after(Loss::Power), []);
}

#[test]
fn what_was_under_way_may_be_there_or_not_but_not_for_ever() {
    let mut bench = Bench::new();
    let before = bench.write(true);
    let after = bench.writes.send(2..3, Kind::Each, true);
    assert_eq!(bench.writes.certain(2), None);
    assert_eq!(bench.holds(before).after(Loss::Process), []);
    // It did not land then, so it must not land later.
    assert!(is_old(&bench.holds(after).after(Loss::Process)));
}

#[test]
fn writes_that_overlap_in_time_may_land_in_either_order() {
    let mut bench = Bench::new();
    let one = bench.writes.send(2..3, Kind::Each, true);
    let two = bench.writes.send(2..3, Kind::Each, true);
    bench.writes.answered(two, Answer::Good);
    bench.writes.answered(one, Answer::Good);
    assert_eq!(bench.holds(two).after(Loss::Power), []);
    let mut bench = Bench::new();
    let one = bench.writes.send(2..3, Kind::Each, true);
    let two = bench.writes.send(2..3, Kind::Each, true);
    bench.writes.answered(two, Answer::Good);
    bench.writes.answered(one, Answer::Good);
    assert_eq!(bench.holds(one).after(Loss::Power), []);
}

#[test]
fn a_flush_covers_only_what_was_answered_before_it_was_sent() {
    let mut bench = Bench::new();
    let write = bench.writes.send(2..3, Kind::Each, false);
    let flush = bench.writes.flush();
    bench.writes.answered(write, Answer::Good);
    bench.writes.flushed(flush, Answer::Good);
    assert_eq!(bench.zeros().after(Loss::Power), []);
}

#[test]
fn what_a_failed_flush_gave_up_is_not_expected_and_what_came_later_is() {
    let mut bench = Bench::new();
    bench.write(false);
    let flush = bench.writes.flush();
    bench.writes.flushed(flush, Answer::Failed);
    bench.flush();
    assert_eq!(bench.zeros().after(Loss::Power), []);
    bench.write(false);
    bench.flush();
    assert!(is_old(&bench.zeros().after(Loss::Power)));
}

#[test]
fn a_torn_block_is_found() {
    let mut bench = Bench::new();
    bench.write(false);
    let torn = bench.writes.send(2..3, Kind::Each, false);
    let half = bench.writes.data(torn)[..SIZE / 2].to_vec();
    bench.zeros();
    bench.disk[2 * SIZE..2 * SIZE + SIZE / 2].copy_from_slice(&half);
    assert_eq!(bench.after(Loss::Power), [Fault::Torn { block: 2 }]);
}

#[test]
fn what_was_never_written_there_is_found() {
    let mut bench = Bench::new();
    let id = bench.write(true);
    let data = bench.writes.data(id);
    bench.holds(id);
    // The right data in another block, too.
    bench.disk[5 * SIZE..6 * SIZE].copy_from_slice(&data);
    assert_eq!(bench.after(Loss::Power), [Fault::Foreign { block: 5 }]);
    let mut bench = Bench::new();
    let id = bench.write(true);
    bench.holds(id).disk[2 * SIZE + 100] ^= 1;
    assert_eq!(bench.after(Loss::Power), [Fault::Foreign { block: 2 }]);
}

#[test]
fn a_refused_write_that_landed_is_found() {
    let mut bench = Bench::new();
    let id = bench.writes.send(2..3, Kind::Each, false);
    bench.writes.answered(id, Answer::Refused);
    assert_eq!(bench.holds(id).after(Loss::Power), [Fault::Foreign { block: 2 }]);
}

#[test]
fn what_was_seen_stays_and_a_later_power_loss_may_take_it_back_unless_it_was_flushed() {
    let mut bench = Bench::new();
    let durable = bench.write(true);
    let cached = bench.write(false);
    assert_eq!(bench.holds(cached).after(Loss::Process), []);
    assert_eq!(bench.holds(durable).after(Loss::Power), []);
    let mut bench = Bench::new();
    let durable = bench.write(true);
    let cached = bench.write(false);
    assert_eq!(bench.holds(cached).after(Loss::Process), []);
    bench.flush();
    assert!(is_old(&bench.holds(durable).after(Loss::Power)));
}

#[test]
fn repeated_blocks_and_zeros_are_known_too() {
    let mut bench = Bench::new();
    let same = bench.writes.send(1..4, Kind::Same, true);
    bench.writes.answered(same, Answer::Good);
    let data = bench.writes.data(same).repeat(3);
    bench.disk[SIZE..4 * SIZE].copy_from_slice(&data);
    assert_eq!(bench.after(Loss::Power), []);
    let zeros = bench.writes.send(2..3, Kind::Zeros, true);
    bench.writes.answered(zeros, Answer::Good);
    assert!(is_old(&bench.after(Loss::Power)));
    bench.disk[2 * SIZE..3 * SIZE].fill(0);
    assert_eq!(bench.after(Loss::Power), []);
}
