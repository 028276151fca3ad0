//! Work in the requests that a store knows: a pure machine that says what to ask next. A store on this machine is asked in
//! a loop (`disk`), one behind a socket as its replies come (`server/remote`).
//!
//! Invariant: at most one request of a piece of work is under way; memory is that of the work and one [`PIECE`].

use std::collections::VecDeque;

use bmi_block::nbd::{Reply, Request};
use bmi_iscsi::{Outcome, Range, Work};

use crate::disk::{Moved, difference};

/// Reading through and repeating go in pieces of about this many bytes.
pub const PIECE: u64 = 1024 * 1024;

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// Ask this, and tell [`Steps::next`] the reply.
    Ask(Request),
    /// As [`Next::Ask`], but a store that keeps in memory what it has must not answer from there.
    AskMedium(Request),
    /// It is over; the buffer is not needed any more.
    End(Outcome, Vec<u8>),
}

/// What the reply that is waited for is about.
#[derive(Debug)]
enum State {
    /// The last request: its reply is the outcome.
    Last { writes: u64, reads: u64 },
    /// What was written is read back.
    Written { offset: u64 },
    /// What is there must be this; then something may be written.
    Comparing { expected: Vec<u8>, then: Option<Request> },
    /// What is there is added to this.
    Or { offset: u64, data: Vec<u8>, durable: bool },
    /// The rest is read and thrown away.
    Checking(Range),
    /// The rest is written with the same blocks.
    Repeating(Range),
    /// The rest is given back.
    Discarding(VecDeque<Range>),
    /// How bytes from here on are kept.
    Extent { offset: u64 },
}

/// Work under way.
#[derive(Debug)]
pub struct Steps {
    state: State,
    /// A flush comes last.
    flush: bool,
    pub moved: Moved,
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Takes a piece off the front.
fn piece(rest: &mut Range, most: u64) -> Range {
    let taken = Range { offset: rest.offset, length: rest.length.min(most) };
    rest.offset += taken.length;
    rest.length -= taken.length;
    taken
}

impl Steps {
    /// The first request. `buffer` is for what is read, and `size` is that of the store, in bytes.
    pub fn begin(work: Work, mut buffer: Vec<u8>, size: u64) -> (Self, Request) {
        let flush = matches!(
            work,
            Work::Repeat { durable: true, .. }
                | Work::Zero { durable: true, .. }
                | Work::Discard { durable: true, .. }
        );
        let last = State::Last { writes: 0, reads: 0 };
        let (state, request) = match work {
            Work::Read(range) => {
                buffer.resize(length(range.length), 0);
                let request = Request::Read { offset: range.offset, buffer };
                (State::Last { writes: 0, reads: range.length }, request)
            }
            Work::Write { offset, data, durable } => {
                let state = State::Last { writes: data.len() as u64, reads: 0 };
                (state, Request::Write { offset, data, durable })
            }
            Work::WriteVerify { offset, data } => {
                (State::Written { offset }, Request::Write { offset, data, durable: true })
            }
            Work::CompareAndWrite { offset, mut data, durable } => {
                let new = data.split_off(data.len() / 2);
                buffer.resize(data.len(), 0);
                let then = Some(Request::Write { offset, data: new, durable });
                (State::Comparing { expected: data, then }, Request::Read { offset, buffer })
            }
            Work::Or { offset, data, durable } => {
                buffer.resize(data.len(), 0);
                (State::Or { offset, data, durable }, Request::Read { offset, buffer })
            }
            Work::Compare { offset, data } => {
                buffer.resize(data.len(), 0);
                (State::Comparing { expected: data, then: None }, Request::Read { offset, buffer })
            }
            // A store that does not know of reading ahead may do it when it is read.
            Work::Check(mut rest) | Work::Prefetch(mut rest) => {
                let first = piece(&mut rest, PIECE);
                buffer.resize(length(first.length), 0);
                (State::Checking(rest), Request::Read { offset: first.offset, buffer })
            }
            Work::Flush | Work::FlushAll => (last, Request::Flush),
            Work::Repeat { range: mut rest, block, .. } => {
                let most = (PIECE / (block.len() as u64).max(1)).max(1) * block.len() as u64;
                let first = piece(&mut rest, most);
                let data = block.repeat(length(first.length) / block.len().max(1));
                (State::Repeating(rest), Request::Write { offset: first.offset, data, durable: false })
            }
            Work::Zero { range, unmap, .. } => {
                let Range { offset, length } = range;
                let state = State::Last { writes: 0, reads: 0 };
                (state, Request::WriteZeroes { offset, length, may_unmap: unmap })
            }
            Work::Discard { ranges, .. } => {
                let mut rest: VecDeque<Range> = ranges.into();
                // The protocol makes no empty list; one of nothing costs nothing.
                let Range { offset, length } = rest.pop_front().unwrap_or(Range { offset: 0, length: 0 });
                (State::Discarding(rest), Request::Discard { offset, length })
            }
            Work::Extent { offset } => {
                let length = size.saturating_sub(offset);
                (State::Extent { offset }, Request::Extent { offset, length })
            }
        };
        (Self { state, flush, moved: Moved::default() }, request)
    }

    /// What comes after a reply.
    pub fn next(&mut self, reply: Reply) -> Next {
        match self.step(reply) {
            Next::End(Outcome::Done, _) if std::mem::take(&mut self.flush) => Next::Ask(Request::Flush),
            next => next,
        }
    }

    fn step(&mut self, reply: Reply) -> Next {
        let last = State::Last { writes: 0, reads: 0 };
        let (held, spent) = match reply {
            Reply::Extent { length, allocated } => {
                let State::Extent { offset } = self.state else {
                    return Next::End(Outcome::Done, Vec::new());
                };
                return Next::End(Outcome::Extent { offset, length: length.max(1), allocated }, Vec::new());
            }
            Reply::Data(held) => (Some(held), Vec::new()),
            Reply::Done(spent) => (None, spent.unwrap_or_default()),
        };
        match (std::mem::replace(&mut self.state, last), held) {
            (State::Last { reads, .. }, Some(held)) => {
                self.moved.read += reads;
                Next::End(Outcome::Data(held), Vec::new())
            }
            (State::Last { writes, .. }, None) => {
                self.moved.written += writes;
                Next::End(Outcome::Done, spent)
            }
            (State::Written { offset }, None) => {
                self.moved.written += spent.len() as u64;
                let buffer = vec![0; spent.len()];
                self.state = State::Comparing { expected: spent, then: None };
                Next::AskMedium(Request::Read { offset, buffer })
            }
            (State::Comparing { expected, then }, Some(held)) => match (difference(&held, &expected), then) {
                (Some(at), _) => Next::End(Outcome::Differs { at }, held),
                (None, Some(write)) => {
                    self.state = State::Last { writes: held.len() as u64, reads: 0 };
                    Next::Ask(write)
                }
                (None, None) => Next::End(Outcome::Done, held),
            },
            (State::Or { offset, mut data, durable }, Some(held)) => {
                data.iter_mut().zip(&held).for_each(|(new, held)| *new |= held);
                self.state = State::Last { writes: data.len() as u64, reads: 0 };
                Next::Ask(Request::Write { offset, data, durable })
            }
            (State::Checking(mut rest), Some(mut buffer)) => {
                if rest.length == 0 {
                    return Next::End(Outcome::Done, buffer);
                }
                let Range { offset, length: more } = piece(&mut rest, PIECE);
                buffer.truncate(length(more));
                self.state = State::Checking(rest);
                Next::Ask(Request::Read { offset, buffer })
            }
            (State::Repeating(mut rest), None) => {
                self.moved.written += spent.len() as u64;
                if rest.length == 0 {
                    return Next::End(Outcome::Done, spent);
                }
                let Range { offset, length: more } = piece(&mut rest, spent.len() as u64);
                let mut data = spent;
                data.truncate(length(more));
                self.state = State::Repeating(rest);
                Next::Ask(Request::Write { offset, data, durable: false })
            }
            (State::Discarding(mut rest), None) => match rest.pop_front() {
                Some(Range { offset, length }) => {
                    self.state = State::Discarding(rest);
                    Next::Ask(Request::Discard { offset, length })
                }
                None => Next::End(Outcome::Done, spent),
            },
            // A store that answers something else than it was asked has not done it.
            _ => Next::End(Outcome::Failed(bmi_iscsi::Fault::Write), Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store in memory that answers at once.
    fn answer(disk: &mut [u8], request: Request) -> Reply {
        let span = |offset: u64, bytes: u64| length(offset)..length(offset + bytes);
        match request {
            Request::Read { offset, mut buffer } => {
                let span = span(offset, buffer.len() as u64);
                buffer.copy_from_slice(&disk[span]);
                Reply::Data(buffer)
            }
            Request::Write { offset, data, .. } => {
                disk[span(offset, data.len() as u64)].copy_from_slice(&data);
                Reply::Done(Some(data))
            }
            Request::Flush => Reply::Done(None),
            Request::Discard { offset, length } | Request::WriteZeroes { offset, length, .. } => {
                disk[span(offset, length)].fill(0);
                Reply::Done(None)
            }
            Request::Extent { length, .. } => Reply::Extent { length, allocated: true },
        }
    }

    fn run(disk: &mut [u8], work: Work) -> (Outcome, Moved) {
        let (mut steps, mut request) = Steps::begin(work, Vec::new(), disk.len() as u64);
        loop {
            match steps.next(answer(disk, request)) {
                Next::Ask(next) | Next::AskMedium(next) => request = next,
                Next::End(outcome, _) => return (outcome, steps.moved),
            }
        }
    }

    #[test]
    fn every_kind_of_work_ends_as_it_does_on_a_local_disk() {
        use crate::disk::Disk;
        let size = 3 * 1024 * 1024;
        let local = Disk::open_local(&"0=memory:3M".parse().unwrap(), 512).unwrap();
        let mut disk = vec![0; size];
        let range = |offset, length| Range { offset, length };
        let blocks = |byte: u8, count: usize| vec![byte; 512 * count];
        let read = |pieces: &[Vec<u8>]| Outcome::Data(pieces.concat());
        for (work, ended, counts) in [
            (Work::Write { offset: 512, data: blocks(7, 3), durable: true }, Outcome::Done, (0, 1536)),
            (Work::Read(range(0, 1024)), read(&[blocks(0, 1), blocks(7, 1)]), (1024, 0)),
            (Work::Compare { offset: 512, data: blocks(7, 3) }, Outcome::Done, (0, 0)),
            (Work::Compare { offset: 0, data: blocks(7, 3) }, Outcome::Differs { at: 0 }, (0, 0)),
            (Work::WriteVerify { offset: 4096, data: blocks(9, 2) }, Outcome::Done, (0, 1024)),
            (
                Work::CompareAndWrite {
                    offset: 4096,
                    data: [blocks(9, 1), blocks(1, 1)].concat(),
                    durable: false,
                },
                Outcome::Done,
                (0, 512),
            ),
            (
                Work::CompareAndWrite {
                    offset: 4096,
                    data: [blocks(9, 1), blocks(2, 1)].concat(),
                    durable: true,
                },
                Outcome::Differs { at: 0 },
                (0, 0),
            ),
            (Work::Or { offset: 4096, data: blocks(0xf0, 2), durable: false }, Outcome::Done, (0, 1024)),
            (Work::Read(range(4096, 1024)), read(&[blocks(0xf1, 1), blocks(0xf9, 1)]), (1024, 0)),
            (Work::Check(range(512, 2 * 1024 * 1024 + 512)), Outcome::Done, (0, 0)),
            (Work::Flush, Outcome::Done, (0, 0)),
            (
                Work::Repeat {
                    range: range(512, 2 * 1024 * 1024 + 1024),
                    block: blocks(5, 1),
                    durable: false,
                },
                Outcome::Done,
                (0, 2 * 1024 * 1024 + 1024),
            ),
            (
                Work::Discard { ranges: vec![range(0, 1024), range(1024 * 1024, 512)], durable: true },
                Outcome::Done,
                (0, 0),
            ),
            (Work::Zero { range: range(2048, 512), unmap: false, durable: true }, Outcome::Done, (0, 0)),
            (Work::Zero { range: range(8192, 512), unmap: true, durable: false }, Outcome::Done, (0, 0)),
            (Work::Read(range(512, 1024)), read(&[blocks(0, 1), blocks(5, 1)]), (1024, 0)),
            (
                Work::Read(range(1024 * 1024 - 512, 1536)),
                read(&[blocks(5, 1), blocks(0, 1), blocks(5, 1)]),
                (1536, 0),
            ),
        ] {
            let (outcome, moved) = run(&mut disk, work.clone());
            assert!(outcome == ended, "{work:?}");
            let mut expected = Moved::default();
            let buffer = match &work {
                Work::Read(range) => vec![0; length(range.length)],
                _ => Vec::new(),
            };
            assert!(outcome == local.execute(work.clone(), buffer, &mut expected).0, "{work:?}");
            assert_eq!((moved.read, moved.written), (expected.read, expected.written), "{work:?}");
            assert_eq!((moved.read, moved.written), counts, "{work:?}");
        }
        let all = Work::Read(range(0, size as u64));
        let outcome = run(&mut disk, all.clone()).0;
        assert!(outcome == local.execute(all, vec![0; size], &mut Moved::default()).0);
    }

    #[test]
    fn what_must_last_is_flushed_when_all_of_it_is_done() {
        let ranges = [Range { offset: 0, length: 512 }, Range { offset: 2 * PIECE, length: 512 }];
        let range = Range { offset: 0, length: 2 * PIECE };
        let flushes = |work: Work| {
            let (mut steps, mut request) = Steps::begin(work, Vec::new(), 3 * PIECE);
            let mut asked = Vec::new();
            loop {
                asked.push(matches!(request, Request::Flush));
                match steps.next(answer(&mut vec![0; length(3 * PIECE)], request)) {
                    Next::Ask(next) | Next::AskMedium(next) => request = next,
                    Next::End(outcome, _) => {
                        assert_eq!(outcome, Outcome::Done);
                        return asked;
                    }
                }
            }
        };
        for durable in [false, true] {
            for (work, requests) in [
                (Work::Repeat { range, block: vec![1; 512], durable }, 2),
                (Work::Zero { range, unmap: true, durable }, 1),
                (Work::Discard { ranges: ranges.to_vec(), durable }, 2),
            ] {
                let mut expected = vec![false; requests];
                expected.extend(durable.then_some(true));
                assert_eq!(flushes(work), expected);
            }
        }
    }
}
