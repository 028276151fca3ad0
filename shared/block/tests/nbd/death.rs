//! Servers die, and come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bmi_block::BlockError;
use bmi_block::nbd::{Change, Fault, Nbd, Reply, Request};

use crate::driver::{ask, connect, next, pattern, read, turn, until, write};
use crate::server::Server;

const MIB: u64 = 1 << 20;

fn is_lost(result: Result<Reply, BlockError>) -> bool {
    match result {
        Ok(_) => false,
        Err(BlockError::Io { source, .. }) => source.to_string().contains("they may be lost"),
        Err(other) => panic!("{other:?}"),
    }
}

/// Writes and reads while the server dies again and again. Everything completes, once, and what was written is there.
fn survives(mut server: Server, mut kill: impl FnMut(&mut Server)) {
    let mut nbd = connect(&server);
    let (length, slots) = (96 << 10, 256);
    let mut versions = vec![0_u64; slots];
    let mut busy: BTreeSet<usize> = BTreeSet::new();
    let (mut token, mut restored) = (0_u64, 0);
    let mut deaths = 0;
    let mut last = Instant::now();
    while deaths < 5 || !busy.is_empty() {
        // One request per slot at a time: what is concurrent may end in any order.
        while deaths < 5 && busy.len() < 48 {
            token += 1;
            let slot = (token * 7919 % slots as u64) as usize;
            if !busy.insert(slot) {
                continue;
            }
            let offset = (slot * length) as u64;
            if token.is_multiple_of(3) {
                nbd.submit(slot as u64, Request::Read { offset, buffer: vec![0; length] });
            } else {
                versions[slot] = token;
                let data = pattern(token, length);
                nbd.submit(slot as u64, Request::Write { offset, data, durable: false });
            }
        }
        let completed = next(&mut nbd);
        let slot = completed.token as usize;
        assert!(busy.remove(&slot), "slot {slot} completed twice");
        if let Reply::Data(data) = completed.result.unwrap() {
            let expected =
                if versions[slot] == 0 { vec![0; length] } else { pattern(versions[slot], length) };
            assert!(data == expected, "slot {slot}");
        }
        if matches!(nbd.take_change(), Some(Change::Restored)) {
            restored += 1;
        }
        if deaths < 5 && last.elapsed() > Duration::from_millis(150) {
            kill(&mut server);
            server.start();
            deaths += 1;
            last = Instant::now();
        }
    }
    assert!(restored >= 4, "it was connected again {restored} times");
    assert!(is_lost(ask(&mut nbd, Request::Flush)), "the first flush says that writes may be lost");
    assert_eq!(ask(&mut nbd, Request::Flush).unwrap(), Reply::Done(None));
    for (slot, version) in versions.iter().enumerate().filter(|(_, version)| **version > 0) {
        let data = read(&mut nbd, (slot * length) as u64, length);
        assert!(data == pattern(*version, length), "slot {slot}");
    }
}

#[test]
fn qemu_nbd_killed_under_load_loses_no_request() {
    survives(Server::qemu_nbd(32 * MIB, &[]), Server::kill);
}

#[test]
fn the_storage_daemon_killed_under_load_loses_no_request() {
    survives(Server::storage_daemon(32 * MIB, "", ",writable=on"), Server::kill);
}

#[test]
fn what_was_flushed_is_not_in_doubt() {
    let mut server = Server::qemu_nbd(MIB, &[]);
    let mut nbd = connect(&server);
    write(&mut nbd, 0, b"safe");
    ask(&mut nbd, Request::Flush).unwrap();
    let durable = Request::Write { offset: 8, data: b"safe too".to_vec(), durable: true };
    ask(&mut nbd, durable).unwrap();
    server.kill();
    server.start();
    ask(&mut nbd, Request::Flush).unwrap();
    assert_eq!(read(&mut nbd, 8, 8), b"safe too");
}

#[test]
fn a_durable_write_hears_of_lost_writes_when_it_is_first() {
    let mut server = Server::qemu_nbd(MIB, &[]);
    let mut nbd = connect(&server);
    write(&mut nbd, 0, b"in doubt");
    server.kill();
    server.start();
    let durable = || Request::Write { offset: 8, data: vec![1; 8], durable: true };
    assert!(is_lost(ask(&mut nbd, durable())));
    ask(&mut nbd, durable()).unwrap();
    ask(&mut nbd, Request::Flush).unwrap();
}

#[test]
fn a_flush_that_was_under_way_when_the_server_died_says_so() {
    let mut server = Server::qemu_nbd(MIB, &[]);
    let mut nbd = connect(&server);
    write(&mut nbd, 0, b"in doubt");
    server.freeze();
    nbd.submit(1, Request::Flush);
    nbd.submit(2, Request::Flush);
    for _ in 0..5 {
        turn(&mut nbd, Duration::from_millis(20));
    }
    server.kill();
    server.start();
    assert!(is_lost(next(&mut nbd).result) && is_lost(next(&mut nbd).result));
    ask(&mut nbd, Request::Flush).unwrap();
}

#[test]
fn the_loop_goes_on_while_nobody_listens() {
    let mut server = Server::qemu_nbd(MIB, &[]);
    let mut nbd = connect(&server);
    assert!(nbd.connected() && nbd.deadline().is_none());
    server.kill();
    until(&mut nbd, |nbd| !nbd.connected());
    assert!(matches!(nbd.take_change(), Some(Change::Lost(Fault::Closed | Fault::Io(_)))));
    assert!(nbd.fd().is_none() && nbd.deadline().is_some() && !nbd.wants_to_send());
    nbd.submit(5, Request::Read { offset: 0, buffer: vec![1; 100] });
    // It is told once why, not at each attempt.
    let (began, mut told) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(2500) {
        turn(&mut nbd, Duration::from_millis(50));
        told += usize::from(nbd.take_change().is_some());
    }
    assert_eq!((told, nbd.in_flight()), (1, 1));
    server.start();
    let completed = next(&mut nbd);
    assert_eq!((completed.token, completed.result.unwrap()), (5, Reply::Data(vec![0; 100])));
    assert!(matches!(nbd.take_change(), Some(Change::Restored)));
}

fn does_not_come_back(mut server: Server, from: &str, to: &str, why: &str) {
    let mut nbd: Nbd = connect(&server);
    server.kill();
    server.replace_argument(from, to);
    server.start();
    nbd.submit(1, Request::Read { offset: 0, buffer: vec![0; 512] });
    let (began, mut reasons) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_millis(1500) {
        turn(&mut nbd, Duration::from_millis(20));
        if let Some(Change::Lost(fault)) = nbd.take_change() {
            reasons.push(fault.to_string());
        }
    }
    assert!(!nbd.connected() && nbd.take_completed().is_none());
    assert!(reasons.last().unwrap().ends_with(why), "{reasons:?}");
    server.kill();
    server.replace_argument(to, from);
    server.start();
    next(&mut nbd).result.unwrap();
}

#[test]
fn an_export_that_has_another_size_or_became_read_only_is_not_taken_for_the_same() {
    does_not_come_back(Server::nbdkit(&["memory", "1M"]), "1M", "2M", "its size is another");
    does_not_come_back(
        Server::qemu_nbd(MIB, &["--cache=writeback"]),
        "--cache=writeback",
        "--read-only",
        "it is read-only now",
    );
}

#[test]
fn a_server_that_shuts_down_in_order_loses_no_request_either() {
    let arguments = ["--filter=delay", "memory", "1M", "delay-read=10"];
    let mut server = Server::nbdkit(&arguments);
    let mut nbd = connect(&server);
    for token in 0..8 {
        nbd.submit(token, Request::Read { offset: token * 512, buffer: vec![0; 512] });
    }
    turn(&mut nbd, Duration::from_millis(100));
    server.terminate(|| turn(&mut nbd, Duration::from_millis(20)));
    server.replace_argument("delay-read=10", "delay-read=0");
    server.start();
    for _ in 0..8 {
        next(&mut nbd).result.unwrap();
    }
}
