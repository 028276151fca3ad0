//! A small poll loop, as the target has one.

use std::time::{Duration, Instant};

use bmi_block::nbd::{Completed, Nbd, Reply, Request};
use bmi_block::{Access, BlockError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::server::Server;

/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Connects to the export `disk`, or the default one of `nbdkit`, which ignores names.
pub fn connect(server: &Server) -> Nbd {
    Nbd::connect(&server.uri("disk"), Access::ReadWrite).unwrap()
}

/// One turn of the loop, of at most `most`.
pub fn turn(nbd: &mut Nbd, most: Duration) {
    nbd.process(Instant::now());
    let until =
        nbd.deadline().map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most));
    let until = Timespec { tv_sec: until.as_secs() as i64, tv_nsec: until.subsec_nanos().into() };
    let mut flags = PollFlags::IN;
    if nbd.wants_to_send() {
        flags |= PollFlags::OUT;
    }
    let mut fds: Vec<PollFd<'_>> =
        nbd.fd().map(|fd| PollFd::from_borrowed_fd(fd, flags)).into_iter().collect();
    poll(&mut fds, Some(&until)).unwrap();
    let began = Instant::now();
    nbd.process(began);
    assert!(began.elapsed() < Duration::from_secs(2), "the loop waited");
}

/// The next that is over.
pub fn next(nbd: &mut Nbd) -> Completed {
    let began = Instant::now();
    loop {
        if let Some(completed) = nbd.take_completed() {
            return completed;
        }
        assert!(began.elapsed() < LIMIT, "nothing completes: {nbd:?}");
        turn(nbd, Duration::from_millis(200));
    }
}

/// Turns until something is so.
pub fn until(nbd: &mut Nbd, what: impl Fn(&Nbd) -> bool) {
    let began = Instant::now();
    while !what(nbd) {
        assert!(began.elapsed() < LIMIT, "it does not become so: {nbd:?}");
        turn(nbd, Duration::from_millis(20));
    }
}

/// Asks one thing and waits for its end.
pub fn ask(nbd: &mut Nbd, request: Request) -> Result<Reply, BlockError> {
    nbd.submit(77, request);
    let completed = next(nbd);
    assert_eq!(completed.token, 77);
    completed.result
}

pub fn read(nbd: &mut Nbd, offset: u64, length: usize) -> Vec<u8> {
    match ask(nbd, Request::Read { offset, buffer: vec![0xee; length] }).unwrap() {
        Reply::Data(data) => data,
        other => panic!("{other:?}"),
    }
}

pub fn write(nbd: &mut Nbd, offset: u64, data: &[u8]) {
    let reply = ask(nbd, Request::Write { offset, data: data.to_vec(), durable: false }).unwrap();
    assert_eq!(reply, Reply::Done(Some(data.to_vec())), "the data are given back");
}

pub fn extent(nbd: &mut Nbd, offset: u64, length: u64) -> (u64, bool) {
    match ask(nbd, Request::Extent { offset, length }).unwrap() {
        Reply::Extent { length, allocated } => (length, allocated),
        other => panic!("{other:?}"),
    }
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
