//! Event lines on standard output.
//!
//! Invariant: sending never waits. When the reader is slow or gone, lines are dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use bmi_agent_api::event::{Line, TargetEvent};

/// Lines that may wait for a slow reader.
const QUEUE: usize = 256;

/// How long a reader is waited for that does not read, until it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the end waits for lines to be written.
const DRAIN: Duration = Duration::from_millis(500);

/// The writer's end of the queue.
pub struct Events {
    lines: SyncSender<String>,
    finished: Receiver<()>,
    dropped: AtomicU64,
}

impl Events {
    /// Starts the writer.
    pub fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = sync_channel::<String>(QUEUE);
        let (finish, finished) = sync_channel(1);
        thread::Builder::new().name("events".to_owned()).stack_size(128 * 1024).spawn(move || {
            let mut open = true;
            for line in queue {
                if open && let Err(error) = write(&mut out, line.as_bytes()) {
                    open = false;
                    tracing::warn!(%error, "standard output is gone; events are dropped");
                }
            }
            let _ = finish.send(());
        })?;
        Ok(Self { lines, finished, dropped: AtomicU64::new(0) })
    }

    /// Queues one event.
    pub fn send(&self, event: &TargetEvent) {
        let line = match Line::of_now(event) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(%error, "an event cannot be written as a line");
                return;
            }
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(line)
            && self.dropped.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!("standard output is not read; events are dropped");
        }
    }

    /// Waits a moment for the last lines.
    pub fn finish(self) {
        drop(self.lines);
        if self.finished.recv_timeout(DRAIN).is_err() {
            tracing::warn!("not every event was written");
        }
        let dropped = self.dropped.into_inner();
        if dropped > 0 {
            tracing::warn!(dropped, "events were dropped");
        }
    }
}

/// Writes a line. Standard output may be full and not block: then the rest is written when it is read again.
fn write(out: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let mut left = line;
    loop {
        let done = match left {
            [] => out.flush().map(|()| true),
            _ => out.write(left).map(|written| {
                left = left.get(written..).unwrap_or_default();
                false
            }),
        };
        match done {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes three bytes at a time, and says every other time that it is full.
    #[derive(Clone, Default)]
    struct Full(Arc<Mutex<Vec<u8>>>, bool);

    impl Full {
        fn is_full(&mut self) -> io::Result<()> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full()?;
            let some = &bytes[..bytes.len().min(3)];
            self.0.lock().unwrap().extend(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.is_full()
        }
    }

    #[test]
    fn a_reader_that_is_late_hears_every_line() {
        let mut out = Full::default();
        for line in ["first\n", "second\n"] {
            write(&mut out, line.as_bytes()).unwrap();
        }
        assert_eq!(*out.0.lock().unwrap(), b"first\nsecond\n");
    }

    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_never_reads_stops_nobody() {
        let events = Events::start(Stuck).unwrap();
        for _ in 0..QUEUE * 2 {
            events.send(&TargetEvent::FirstRead);
        }
        assert!(events.dropped.load(Ordering::Relaxed) >= QUEUE as u64 - 1);
    }
}
