//! Every write and its answer, through the target and the broker to a real Ceph: what was acknowledged survives whatever
//! is killed in between (T6), and who was fenced writes nothing any more (K5).
//!
//! The checker and its load are those of the target's own tests. The seed is printed and is `PROPTEST_RNG_SEED`; a normal
//! run draws some of the losses, `BMI_FULL=1` has all of them several times.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

mod broker;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../system/honesty/load.rs"]
mod load;
#[path = "../system/honesty/look.rs"]
mod look;
#[path = "../system/honesty/random.rs"]
mod random;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../system/target.rs"]
mod target;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../system/wire.rs"]
mod wire;
#[path = "../system/honesty/writes.rs"]
mod writes;

use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bmi_tests::{Ceph, WaitingStore, until};

use broker::{BLOCK_SIZE, BLOCKS, Broker, Host, Volume};
use load::{Mix, Session};
use look::check;
use random::Random;
use target::{Killer, Target};
use writes::{Loss, Writes};

/// More than can be sent before the end.
const MIX: Mix = Mix { commands: 1_000_000, unmap: true, forced: 30, flushes: 8 };

/// Sessions side by side.
const SESSIONS: u8 = 3;

/// How many losses a normal run draws, and how often a full one has each.
const DRAWN: usize = 3;
const FULL: usize = 3;

/// Writes that are acknowledged before something is lost, and more when it is back; and how long that may take.
const SOME: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds after which Ceph forgets that a client watches a volume; 30 unless it is told.
const WATCH_TIMEOUT: u64 = 5;

/// How long an OSD stands still until writes wait there, and then until others do; too short to be called down.
const STILL: Duration = Duration::from_secs(1);

/// Two OSDs: the second has the data of volumes and stands still where a test wants that. Ceph soon forgets who watched there.
fn apart() -> &'static Ceph {
    static APART: OnceLock<Ceph> = OnceLock::new();
    APART.get_or_init(|| {
        let ceph = Ceph::start_apart();
        ceph.ceph(&["config", "set", "osd", "osd_client_watch_timeout", &WATCH_TIMEOUT.to_string()]);
        ceph
    })
}

/// What is lost in the middle of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Target,
    Broker,
    Both,
    Osd,
    OsdAndBroker,
    OsdAndBoth,
    /// The broker, whose writes wait at an OSD that stands still: they may be done when its successor has written.
    BrokerBeforeOsd,
}

const ALL: [Lost; 7] = [
    Lost::Target,
    Lost::Broker,
    Lost::Both,
    Lost::Osd,
    Lost::OsdAndBroker,
    Lost::OsdAndBoth,
    Lost::BrokerBeforeOsd,
];

fn losses(random: &mut Random) -> Vec<Lost> {
    if std::env::var_os("BMI_FULL").is_some() {
        return ALL.into_iter().cycle().take(ALL.len() * FULL).collect();
    }
    let mut left = ALL.to_vec();
    (0..DRAWN).map(|_| left.swap_remove(random.below(left.len() as u64) as usize)).collect()
}

fn target_of(broker: &Broker) -> Target {
    Target::start(&["--lun", &broker.lun(), "--block-size", &BLOCK_SIZE.to_string()])
}

/// Waits until the load has gone on.
fn go_on(writes: &Mutex<Writes>) {
    let acknowledged = || writes.lock().unwrap().acknowledged;
    let before = acknowledged();
    until("writes are acknowledged", PATIENCE, || (acknowledged() >= before + SOME).then_some(()));
}

/// Loses it; what is not the target comes back, and the load goes on before the target ends with it.
fn lose(
    lost: Lost,
    (ceph, osd, volume): (&Ceph, u32, &Volume<'_>),
    (host, broker): (&Host, &mut Broker),
    target: Killer,
    writes: &Mutex<Writes>,
) {
    go_on(writes);
    if lost == Lost::BrokerBeforeOsd {
        ceph.osd_pause(1);
        thread::sleep(STILL);
    }
    if matches!(lost, Lost::Osd | Lost::OsdAndBroker | Lost::OsdAndBoth) {
        ceph.osd_kill(osd);
    }
    if matches!(lost, Lost::Both | Lost::OsdAndBoth) {
        target.kill();
    }
    let restarts = !matches!(lost, Lost::Target | Lost::Osd);
    if restarts {
        broker.kill();
    }
    if matches!(lost, Lost::Osd | Lost::OsdAndBroker | Lost::OsdAndBoth) {
        ceph.osd_start(osd);
    }
    if restarts {
        *broker = Broker::start(host, volume, &volume.access());
    }
    if lost == Lost::BrokerBeforeOsd {
        thread::sleep(STILL);
        ceph.osd_resume(1);
    }
    if !matches!(lost, Lost::Target | Lost::Both | Lost::OsdAndBoth) {
        go_on(writes);
    }
    target.kill();
}

#[test]
fn t6_acknowledged_writes_survive_kill_9_of_broker_target_and_osd() {
    let ceph = apart();
    let (store, host) = (WaitingStore::open(ceph), Host::new());
    let volume = Volume::make_apart(&store, ceph);
    let mut random = Random::new("what is lost between a node and Ceph");
    let writes = Mutex::new(Writes::new(random.next(), BLOCKS, BLOCK_SIZE));
    let mut broker = Broker::start(&host, &volume, &volume.access());
    volume.zero(&target_of(&broker));
    for lost in losses(&mut random) {
        let (begun, osd) = (Instant::now(), random.below(2) as u32);
        let mut target = target_of(&broker);
        let before = writes.lock().unwrap().acknowledged;
        let running = target.process();
        load::run(&target, &writes, &mut random, SESSIONS, MIX, || {
            let _ends = EndsWithTest(running);
            lose(lost, (ceph, osd, &volume), (&host, &mut broker), running, &writes);
        });
        target.wait();
        let acknowledged = writes.lock().unwrap().acknowledged - before;
        check(&target_of(&broker), &mut writes.lock().unwrap(), Loss::Process);
        eprintln!("{lost:?}: {acknowledged} writes acknowledged, {:?}", begun.elapsed());
    }
}

/// Sends all of a load from so many sessions.
fn run_to_end(target: &Target, writes: &Mutex<Writes>, random: &mut Random, sessions: u8, mix: Mix) {
    thread::scope(|scope| {
        for isid in 1..=sessions {
            let mut session = Session::log_in(target, writes, random, isid, mix);
            scope.spawn(move || session.run());
        }
    });
}

/// Ends a target when a test fails, whose load would go on until then.
struct EndsWithTest(Killer);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.kill();
        }
    }
}

/// Where a broker is when it is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It writes.
    Running,
    /// It stands still, for so long.
    Paused(Duration),
    /// What it writes waits at an OSD that stands still.
    BeforeOsd,
}

/// A broker is fenced; its successor is on another host.
fn fenced(ceph: &Ceph, moment: Moment) {
    let store = WaitingStore::open(ceph);
    let (here, elsewhere) = (Host::new(), Host::new());
    let volume = match moment {
        Moment::BeforeOsd => Volume::make_apart(&store, ceph),
        Moment::Running | Moment::Paused(_) => Volume::make(&store),
    };
    let first = volume.access();
    let mut random = Random::new("who is fenced");
    let writes = Mutex::new(Writes::new(random.next(), BLOCKS, BLOCK_SIZE));
    let mut old = Broker::start(&here, &volume, &first);
    volume.zero(&target_of(&old));
    let mut target = target_of(&old);
    let running = target.process();
    let mut successor = None;
    let mut other_random = Random::new("its successor");
    load::run(&target, &writes, &mut random, SESSIONS, MIX, || {
        let _ends = EndsWithTest(running);
        go_on(&writes);
        match moment {
            Moment::Running => {}
            Moment::Paused(pause) => {
                old.pause();
                thread::sleep(pause);
            }
            Moment::BeforeOsd => {
                ceph.osd_pause(1);
                thread::sleep(STILL);
            }
        }
        volume.fence();
        let new = Broker::start(&elsewhere, &volume, &volume.access());
        let new_target = target_of(&new);
        if moment == Moment::BeforeOsd {
            ceph.osd_resume(1);
        }
        // From here on a write of the old one that lands is newer than what was seen.
        check(&new_target, &mut writes.lock().unwrap(), Loss::Process);
        let before = writes.lock().unwrap().acknowledged;
        let second = Mix { commands: 150, ..MIX };
        run_to_end(&new_target, &writes, &mut other_random, SESSIONS, second);
        assert!(writes.lock().unwrap().acknowledged > before + 100, "the successor writes");
        if matches!(moment, Moment::Paused(_)) {
            old.resume();
        }
        assert_eq!(old.ended(), Some(3), "it says that it was fenced");
        run_to_end(&new_target, &writes, &mut other_random, SESSIONS, second);
        successor = Some((new, new_target));
        running.kill();
    });
    target.wait();
    let (_new, new_target) = successor.unwrap();
    check(&new_target, &mut writes.lock().unwrap(), Loss::Process);
    let mut again = Broker::spawn(&here, &volume, &first);
    assert_eq!(again.ended(), Some(1), "its key is of no use");
}

/// Nothing shows that it has the volume: it was let in by the monitors, and stands still before any OSD has heard of it.
#[test]
fn k5_a_broker_that_is_fenced_before_it_has_the_lock_never_serves_and_gives_the_lock_back() {
    let ceph = Ceph::shared();
    let store = WaitingStore::open(ceph);
    let (here, elsewhere) = (Host::new(), Host::new());
    let volume = Volume::make(&store);
    let first = volume.access();
    ceph.osd_pause(0);
    let mut old = Broker::spawn(&here, &volume, &first);
    until("the monitors have let it in", PATIENCE, || here.has_client().then_some(()));
    old.pause();
    ceph.osd_resume(0);
    volume.fence();
    assert_eq!(volume.lock_owners(ceph), "", "it came too late for this test");
    old.resume();
    assert_eq!(old.ended(), Some(3), "it says that it was fenced");
    assert_eq!(old.said(), "", "it never served");
    assert_eq!(volume.lock_owners(ceph), "");
    drop(Broker::start(&elsewhere, &volume, &volume.access()));
}

/// Ceph has forgotten by then that it watches: it finds its lock gone when it comes back.
#[test]
fn k5_a_broker_that_comes_back_from_a_long_pause_writes_nothing_that_its_successor_would_see() {
    fenced(apart(), Moment::Paused(Duration::from_secs(WATCH_TIMEOUT + 1)));
}

/// The OSD has not heard of the blocklist when it goes on, and has the writes already.
#[test]
fn k5_writes_that_wait_at_an_osd_when_their_broker_is_fenced_are_nothing_that_its_successor_would_see() {
    for _ in 0..if std::env::var_os("BMI_FULL").is_some() { FULL } else { 1 } {
        fenced(apart(), Moment::BeforeOsd);
    }
}

/// Nobody tells it that its lock is gone: only the blocklist keeps it out.
#[test]
fn k5_a_broker_that_still_runs_or_comes_back_from_a_short_pause_is_kept_out() {
    for moment in [Moment::Running, Moment::Paused(Duration::from_secs(1))] {
        fenced(Ceph::shared(), moment);
    }
}
