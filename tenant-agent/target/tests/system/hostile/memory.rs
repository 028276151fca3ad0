//! Peers that want the target to hold as much as possible for them.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{RESIDENT_MAX, Scene};
use crate::wire::{NO_TAG, Pdu, Wire, pdu, ten};

/// So much waits to be sent before the target stops reading, twice; and what the target is without any peer. In KiB.
const UNREAD_MAX: u64 = 16 * 1024;

/// What one session may hold, in KiB: 128 commands with 256 KiB of unsolicited data each, and 16 MiB by R2T.
const HELD_MAX: u64 = 48 * 1024 + UNREAD_MAX;

/// Sends the same again and again without reading any answer, until nothing more is taken. What was taken of the last
/// PDU does not matter.
fn flood(wire: &mut Wire, mut next: impl FnMut(&mut Wire) -> Pdu) {
    // Far more than the kernel holds for both sides, also of the smallest.
    const PDUS: usize = 2_000_000;
    wire.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..PDUS {
        let bytes = next(wire).bytes(false, false);
        if wire.stream.write_all(&bytes).is_err() {
            return;
        }
    }
    panic!("the target goes on reading, though nobody takes its answers");
}

#[test]
fn t4_a_peer_that_never_reads_is_not_read_from_any_more() {
    let mut scene = Scene::open();
    let pings = |wire: &mut Wire| {
        wire.cmd_sn += 1;
        pdu(0x40, 0x80).word(16, wire.cmd_sn).word(20, NO_TAG).data(&[1; 8192])
    };
    let small = |_: &mut Wire| pdu(0x1c, 0x80);
    let mut greedy = Wire::log_in(scene.target.address, &[]);
    flood(&mut greedy, pings);
    scene.check_neighbour("pings");
    let mut rejected = Wire::log_in(scene.target.address, &["MaxRecvDataSegmentLength=512"]);
    flood(&mut rejected, small);
    scene.check_neighbour("rejects");
    let resident = scene.target.resident();
    assert!(resident < UNREAD_MAX, "{resident} KiB");
    drop((greedy, rejected));
    scene.end();
}

#[test]
fn t4_reads_that_nobody_takes_are_not_held() {
    let mut scene = Scene::open();
    let mut greedy = Wire::log_in(scene.target.address, &["MaxRecvDataSegmentLength=262144"]);
    // All that fit the window, each all of the disk.
    for itt in 2..129 {
        let read = greedy.command(itt, &ten(0x28, 0, 16_384), 0xc0, 16_384 * 512);
        greedy.send(&read);
    }
    scene.check_neighbour("reads");
    let resident = scene.target.resident();
    // Including the disk, which is in memory and was not written.
    assert!(resident < UNREAD_MAX, "{resident} KiB");
    drop(greedy);
    scene.end();
}

#[test]
fn t4_what_a_session_had_collected_is_given_back() {
    let mut scene = Scene::open();
    let keys = ["InitialR2T=No", "FirstBurstLength=262144"];
    let mut greedy = Wire::log_in(scene.target.address, &keys);
    for itt in 2..129 {
        let write = greedy.command(itt, &ten(0x2a, 0, 512), 0x20, 262_144);
        greedy.send(&write);
        // All but the last byte, and no F bit: never done.
        greedy.send(&pdu(0x05, 0).word(16, itt).word(20, NO_TAG).data(&vec![1; 262_143]));
    }
    greedy.send(&pdu(0x40, 0x80).word(16, 1000).word(20, NO_TAG));
    assert_eq!(greedy.answer().unwrap().word(16), 1000);
    let held = scene.target.resident();
    assert!(held < HELD_MAX, "{held} KiB");
    scene.check_neighbour("writes that are never done");
    // Before the end looks at the bound of the property again.
    drop(greedy);
    scene.target.await_descriptors(scene.descriptors);
    // The socket is closed a moment before the memory is given back.
    let until = Instant::now() + Duration::from_secs(5);
    while scene.target.resident() >= RESIDENT_MAX {
        assert!(Instant::now() < until, "{} KiB of {held} KiB", scene.target.resident());
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.end();
}
