//! Waiting for sockets (epoll(7)), with nothing allocated from one turn to the next.
//!
//! Sleeping and being woken takes longer than a small command does, so the thread looks again for a short while before it
//! sleeps: only as long as that has paid off lately, and giving way to whoever else wants the processor. A target
//! without traffic sleeps.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken at once; the others come with the next turn.
const EVENTS: usize = 32;

/// The longest that it looks again before it sleeps: about what a sleep costs in a virtual machine.
const LOOK_MAX: Duration = Duration::from_micros(50);

/// Where it begins, when a sleep turned out to be shorter than [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_micros(10);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub input: bool,
    pub output: bool,
}

impl Interest {
    pub const INPUT: Self = Self { input: true, output: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.input);
        flags.set(EventFlags::OUT, self.output);
        flags
    }
}

/// The set of what is waited for. A descriptor leaves it when it is closed.
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<Event>,
    /// How long to look before sleeping.
    look: Duration,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(EVENTS),
            look: Duration::ZERO,
        })
    }

    /// Waits for this descriptor too; `token` is told when it is ready.
    pub fn add(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), interest.flags())?)
    }

    pub fn change(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits for this descriptor with this interest, whether or not it was waited for before.
    pub fn ensure(&self, source: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        match self.change(&source, token, interest) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
                self.add(source, token, interest)
            }
            result => result,
        }
    }

    /// Waits until something is ready or the time is over.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let begun = Instant::now();
        let look = timeout.map_or(self.look, |timeout| timeout.min(self.look));
        while begun.elapsed() < look {
            self.poll(Some(Duration::ZERO))?;
            if !self.ready.is_empty() {
                return Ok(());
            }
            thread::yield_now();
        }
        self.poll(timeout.map(|timeout| timeout.saturating_sub(begun.elapsed())))?;
        // What came soon after would have been worth looking for; what did not was looked for in vain.
        self.look = if self.ready.is_empty() || begun.elapsed() > 2 * LOOK_MAX {
            Duration::ZERO
        } else {
            (2 * self.look).clamp(LOOK_MIN, LOOK_MAX)
        };
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(60),
            tv_nsec: left.subsec_nanos().into(),
        });
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The tokens of what was ready.
    pub fn ready(&self) -> impl Iterator<Item = u64> + '_ {
        self.ready.iter().map(|event| event.data.u64())
    }
}
