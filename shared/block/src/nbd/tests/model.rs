//! A server that does whatever the protocol allows: any order, any chunks, any cuts, and death, which takes its cache.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::BlockError;
use crate::nbd::request::Reply;
use crate::nbd::wire::transmission;

/// The kind of a request that is a flush.
const FLUSH: u8 = 7;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Submit(u8, u16, u16, u8),
    /// So many bytes reach the server.
    Transmit(usize),
    /// One request is done and answered, in pieces that this number says.
    Answer(usize, u16),
    /// So many bytes reach the client.
    Deliver(usize),
    /// The server dies; the next one has these flags.
    Die {
        structured: bool,
        flags: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(a, b, c, d)| Step::Submit(a, b, c, d)),
        4 => (1_usize..4000).prop_map(Step::Transmit),
        6 => (any::<usize>(), any::<u16>()).prop_map(|(which, how)| Step::Answer(which, how)),
        4 => (1_usize..2000).prop_map(Step::Deliver),
        1 => (any::<bool>(), any::<u16>()).prop_map(|(structured, flags)| Step::Die { structured, flags }),
    ]
}

/// Each server, with bytes that are on their way in both directions.
struct World {
    disk: Vec<u8>,
    /// What is left of it after a death.
    stable: Vec<u8>,
    flags: u16,
    structured: bool,
    to_server: Vec<u8>,
    asked: Vec<Asked>,
    to_client: Vec<u8>,
}

impl World {
    fn answer(&mut self, which: usize, how: u16) {
        let asked = self.asked.swap_remove(which);
        let cookie = asked.cookie;
        let range = asked.offset as usize..asked.offset as usize + asked.length as usize;
        let reply = match asked.command {
            0 if self.structured => self.read(&asked, how),
            0 => [simple(0, cookie), self.disk[range].to_vec()].concat(),
            7 => extent(CONTEXT, cookie, u32::from(how).max(1), u32::from(how) & 3),
            command => {
                match command {
                    1 => self.disk[range.clone()].copy_from_slice(&asked.data),
                    6 => self.disk[range.clone()].fill(0),
                    _ => assert_eq!(command, 3),
                }
                if command == 3 {
                    self.stable.copy_from_slice(&self.disk);
                } else if asked.flags & 1 != 0 || !self.is_volatile() {
                    self.stable[range.clone()].copy_from_slice(&self.disk[range]);
                }
                if self.structured && how & 1 == 0 { chunk(true, 0, cookie, &[]) } else { simple(0, cookie) }
            }
        };
        self.to_client.extend(reply);
    }

    fn is_volatile(&self) -> bool {
        self.flags & transmission::SEND_FLUSH != 0
    }

    /// Chunks of some length, some of them holes, from the end or from the beginning.
    fn read(&self, asked: &Asked, how: u16) -> Vec<u8> {
        let length = usize::from(how >> 3).max(1).min(asked.length as usize);
        let offsets = (asked.offset..asked.offset + u64::from(asked.length)).step_by(length);
        let mut chunks: Vec<Vec<u8>> = offsets
            .map(|offset| {
                let end = (offset as usize + length).min(asked.offset as usize + asked.length as usize);
                let bytes = &self.disk[offset as usize..end];
                match bytes.iter().all(|byte| *byte == 0) {
                    true => hole(false, asked.cookie, offset, bytes.len() as u32),
                    false => data(false, asked.cookie, offset, bytes),
                }
            })
            .collect();
        if how & 1 == 0 {
            chunks.reverse();
        }
        if how & 2 == 0 {
            chunks.push(chunk(true, 0, asked.cookie, &[]));
        } else if let Some(last) = chunks.last_mut() {
            last[5] |= 1;
        }
        chunks.concat()
    }
}

/// What the caller knows: one range per token, which no other request that is under way touches.
struct Caller {
    client: Client,
    model: Vec<Byte>,
    open: BTreeMap<u64, Open>,
    next: u64,
    lost: usize,
    /// Completed writes may be gone, and nobody said so yet.
    owed: bool,
    /// When it is.
    now: u64,
}

#[derive(Debug, Clone, Copy)]
struct Byte {
    value: u8,
    /// A server died with it in its cache.
    in_doubt: bool,
    /// When it was written, until it is on stable storage.
    cached: Option<u64>,
}

struct Open {
    kind: u8,
    range: Range<usize>,
    byte: u8,
    since: u64,
}

impl Caller {
    fn submit(&mut self, kind: u8, start: u16, length: u16, byte: u8) {
        let start = usize::from(start) % SIZE;
        let length = usize::from(length) % 700;
        let range = start..(start + length).min(SIZE);
        if self.open.values().any(|other| other.range.start < range.end && range.start < other.range.end) {
            return;
        }
        let (offset, length) = (range.start as u64, range.len() as u64);
        let kind = if kind % 7 == 6 && byte & 1 == 1 { FLUSH } else { kind % 7 };
        let request = match kind {
            0 | 1 => read(offset, range.len()),
            2 => write(offset, &vec![byte; range.len()]),
            3 => Request::Write { offset, data: vec![byte; range.len()], durable: true },
            4 => Request::Discard { offset, length },
            5 => Request::WriteZeroes { offset, length, may_unmap: byte & 1 == 0 },
            FLUSH => Request::Flush,
            _ => Request::Extent { offset, length },
        };
        let byte = if request.changes() && !matches!(request, Request::Write { .. }) { 0 } else { byte };
        self.next += 1;
        self.open.insert(self.next, Open { kind, range, byte, since: self.now });
        self.client.submit(self.next, request);
    }

    /// Whether it is all the caller may rely on.
    fn agrees(&self, range: Range<usize>, data: &[u8]) -> bool {
        self.model[range].iter().zip(data).all(|(byte, found)| byte.in_doubt || byte.value == *found)
    }

    fn take(&mut self, flags: u16) {
        let volatile = flags & transmission::SEND_FLUSH != 0;
        while let Some(completed) = self.client.take_completed() {
            self.now += 1;
            let Open { kind, range, byte, since } =
                self.open.remove(&completed.token).expect("it completes once");
            let durable = kind == 3;
            // Where a server does not know durable writes, they end with a flush.
            let flush = kind == FLUSH || durable && flags & transmission::SEND_FUA == 0;
            match completed.result {
                Ok(Reply::Data(data)) => assert!(self.agrees(range.clone(), &data)),
                Ok(Reply::Extent { length, .. }) => assert!(length <= range.len() as u64),
                Ok(Reply::Done(_)) => assert!(!(durable || flush) || !self.owed, "a loss was kept quiet"),
                Err(BlockError::Io { source, .. }) => {
                    assert!(source.to_string().contains("may be lost"));
                    self.lost += 1;
                    self.owed = false;
                }
                Err(other) => panic!("{other:?}"),
            }
            if (2..=5).contains(&kind) {
                let cached = (volatile && !durable).then_some(self.now);
                self.model[range].fill(Byte { value: byte, in_doubt: false, cached });
            }
            if flush {
                for byte in self.model.iter_mut().filter(|byte| byte.cached.is_some_and(|at| at <= since)) {
                    byte.cached = None;
                }
            }
        }
    }

    fn server_died(&mut self) {
        self.client.detach();
        for byte in self.model.iter_mut().filter(|byte| byte.cached.is_some()) {
            (byte.cached, byte.in_doubt) = (None, true);
            self.owed = true;
        }
    }
}

fn run(steps: Vec<Step>, payload: u32) {
    let mut world = World {
        disk: vec![0; SIZE],
        stable: vec![0; SIZE],
        flags: EVERYTHING,
        structured: true,
        to_server: Vec::new(),
        asked: Vec::new(),
        to_client: Vec::new(),
    };
    let mut caller = Caller {
        client: Client::new(),
        model: vec![Byte { value: 0, in_doubt: false, cached: None }; SIZE],
        open: BTreeMap::new(),
        next: 0,
        lost: 0,
        owed: false,
        now: 0,
    };
    caller.client.attach(export(EVERYTHING, true, payload));
    let mut deaths = 0;
    // In the end everything is transmitted and answered.
    let rest = [Step::Transmit(usize::MAX), Step::Answer(0, 7), Step::Deliver(usize::MAX)];
    let ending = rest.into_iter().cycle();
    for step in steps.into_iter().map(Some).chain(std::iter::once(None)) {
        match step {
            Some(step) => act(&mut world, &mut caller, step, payload, &mut deaths),
            None => {
                for step in ending.clone().take(100_000) {
                    act(&mut world, &mut caller, step, payload, &mut deaths);
                    if caller.client.in_flight() == 0 {
                        break;
                    }
                }
            }
        }
    }
    assert_eq!((caller.client.in_flight(), caller.open.len()), (0, 0));
    assert!(caller.agrees(0..SIZE, &world.disk));
    assert!(deaths > 0 || caller.lost == 0);
}

fn act(world: &mut World, caller: &mut Caller, step: Step, payload: u32, deaths: &mut usize) {
    match step {
        Step::Submit(kind, start, length, byte) => caller.submit(kind, start, length, byte),
        Step::Transmit(most) => {
            transmit(&mut caller.client, &mut world.to_server, most);
            world.asked.extend(std::iter::from_fn(|| asked(&mut world.to_server)));
        }
        Step::Answer(which, how) if !world.asked.is_empty() => world.answer(which % world.asked.len(), how),
        Step::Answer(..) => {}
        Step::Deliver(most) => {
            let bytes: Vec<u8> = world.to_client.drain(..most.min(world.to_client.len())).collect();
            caller.client.receive(&bytes).unwrap();
        }
        Step::Die { structured, flags } => {
            *deaths += 1;
            caller.server_died();
            world.disk.copy_from_slice(&world.stable);
            world.flags = flags & EVERYTHING | 1;
            world.to_server.clear();
            world.asked.clear();
            world.to_client.clear();
            world.structured = structured;
            caller.client.attach(export(world.flags, structured, payload));
        }
    }
    caller.take(world.flags);
}

proptest! {
    #[test]
    fn whatever_a_server_may_do_every_request_completes_and_the_contents_are_right(
        steps in prop::collection::vec(step(), 1..200),
        payload in prop_oneof![1_u32..200, Just(1 << 20)],
    ) {
        run(steps, payload);
    }
}

#[test]
fn a_flush_or_a_durable_write_is_what_the_server_offers() {
    let durable = || Request::Write { offset: 0, data: vec![1; 10], durable: true };
    let commands = |flags| {
        let mut client = Client::new();
        client.attach(export(flags, true, 1 << 20));
        client.submit(0, durable());
        client.submit(1, Request::Flush);
        let mut seen = Vec::new();
        while client.in_flight() > 0 {
            for asked in requests(&mut client) {
                seen.push((asked.command, asked.flags));
                client.receive(&simple(0, asked.cookie)).unwrap();
            }
        }
        seen
    };
    assert_eq!(commands(0b1101), [(1, 1), (3, 0)]);
    assert_eq!(commands(0b0101), [(1, 0), (3, 0), (3, 0)], "without FUA it is followed by a flush");
    assert_eq!(commands(0b0001), [(1, 0)], "without a cache there is nothing to flush");
}

#[test]
fn zeros_keep_their_space_or_give_it_back() {
    let mut client = Client::new();
    client.attach(export(EVERYTHING, true, 1 << 20));
    client.submit(0, Request::Discard { offset: 0, length: 10 });
    client.submit(1, Request::WriteZeroes { offset: 20, length: 10, may_unmap: true });
    client.submit(2, Request::WriteZeroes { offset: 40, length: 10, may_unmap: false });
    let seen: Vec<_> = requests(&mut client).iter().map(|asked| (asked.command, asked.flags)).collect();
    assert_eq!(seen, [(6, 0), (6, 0), (6, 2)]);
    let mut client = Client::new();
    client.attach(export(1, true, 4));
    client.submit(0, Request::Discard { offset: 0, length: 10 });
    let seen: Vec<_> =
        requests(&mut client).iter().map(|asked| (asked.command, asked.data.clone())).collect();
    assert_eq!(seen, [(1, vec![0; 4]), (1, vec![0; 4]), (1, vec![0; 2])]);
}

#[test]
fn a_long_request_has_few_pieces_under_way() {
    let mut client = Client::new();
    client.attach(export(EVERYTHING, true, 1));
    client.submit(0, read(0, 4000));
    client.submit(1, read(4000, 10));
    let first = requests(&mut client);
    assert!(first.len() <= 16, "{}", first.len());
    client.receive(&hole(true, first[0].cookie, 0, 1)).unwrap();
    assert_eq!(requests(&mut client).len(), 1);
}
