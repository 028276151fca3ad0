//! Many requests are under way together.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bmi_block::nbd::{Reply, Request};

use crate::driver::{connect, next, pattern, read};
use crate::server::Server;

#[test]
fn a_slow_read_does_not_hold_up_fast_writes() {
    let server = Server::nbdkit(&["--threads=16", "--filter=delay", "memory", "1M", "delay-read=500ms"]);
    let mut nbd = connect(&server);
    for token in 0..4 {
        nbd.submit(token, Request::Read { offset: token * 4096, buffer: vec![9; 4096] });
    }
    for token in 4..8 {
        let data = pattern(token, 4096);
        nbd.submit(token, Request::Write { offset: token * 4096, data, durable: false });
    }
    assert_eq!(nbd.in_flight(), 8);
    let began = Instant::now();
    let order: Vec<u64> = (0..8).map(|_| next(&mut nbd)).map(|completed| completed.token).collect();
    let first: BTreeSet<u64> = order[..4].iter().copied().collect();
    assert_eq!(first, (4..8).collect(), "the writes come first: {order:?}");
    assert!(began.elapsed() < Duration::from_millis(1500), "the reads were together: {:?}", began.elapsed());
}

#[test]
fn hundreds_of_requests_complete_once_each_and_with_their_own_data() {
    let server = Server::qemu_nbd(64 << 20, &[]);
    let mut nbd = connect(&server);
    let length = 37_000_usize;
    for token in 0..500 {
        let data = pattern(token, length);
        nbd.submit(token, Request::Write { offset: token * length as u64, data, durable: false });
    }
    let mut open: BTreeSet<u64> = (0..500).collect();
    while nbd.in_flight() > 0 || !open.is_empty() {
        let completed = next(&mut nbd);
        completed.result.unwrap();
        assert!(open.remove(&completed.token), "{} completed twice", completed.token);
    }
    for token in 0..500 {
        nbd.submit(token, Request::Read { offset: token * length as u64, buffer: vec![0; length] });
    }
    for _ in 0..500 {
        let completed = next(&mut nbd);
        let Reply::Data(data) = completed.result.unwrap() else { panic!() };
        assert!(data == pattern(completed.token, length), "{}", completed.token);
    }
    assert!(nbd.take_completed().is_none());
    assert!(read(&mut nbd, 0, 1) == pattern(0, 1));
}
