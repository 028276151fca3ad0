//! The server over a real socket, with a volume in memory behind it.

#![allow(clippy::cast_possible_truncation, reason = "lengths of a few bytes")]

mod client;
mod hostile;
mod order;

use std::path::PathBuf;
use std::rc::Rc;

use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::{Ended, Export, serve};
use crate::volume::memory::{Memory, Weather};
use client::Client;

const SIZE: usize = 64 << 20;

/// A server of two exports: `0` to write, `1` to read.
struct Rig {
    exports: Rc<Vec<Export<Memory>>>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Ended>,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn start(change: impl FnOnce(&mut Memory)) -> Self {
        let mut memory = Memory::new(SIZE);
        change(&mut memory);
        let read_only = Memory::new(4096);
        let exports =
            [Export::new("0".to_owned(), memory, false), Export::new("1".to_owned(), read_only, true)];
        let exports = Rc::new(Vec::from(exports));
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Rc::clone(&exports);
        let server = spawn_local(serve(listener, served, async {
            let _ = stopped.await;
        }));
        Self { exports, socket, stop: Some(stop), server, _directory: directory }
    }

    fn memory(&self) -> &Memory {
        &self.exports[0].volume
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.socket, "0").await.unwrap()
    }

    async fn stop(mut self) -> Ended {
        drop(self.stop.take());
        self.server.await.unwrap()
    }
}

/// Runs a test on one thread, as the program runs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn what_is_written_is_read_and_zeroes_are_zeroes() {
    run(async {
        let rig = Rig::start(|_| {});
        let mut client = rig.connect().await;
        assert_eq!(client.write(512, &[7; 5000]).await, 0);
        assert_eq!(client.read(511, 5002).await, Ok([&[0][..], &[7; 5000], &[0]].concat()));
        for (flags, call) in [(0, "write_zeroes"), (2, "write")] {
            assert_eq!(client.write(1000, &[7; 100]).await, 0);
            assert_eq!(client.command(flags, 6, 1001, 98).await, 0);
            assert_eq!(client.read(1000, 100).await, Ok([&[7][..], &[0; 98], &[7]].concat()));
            assert_eq!(rig.memory().calls.borrow().iter().rev().nth(1), Some(&call), "NO_HOLE writes");
        }
        assert_eq!(client.command(0, 4, 0, SIZE as u32).await, 0);
        assert_eq!(client.command(0, 3, 0, 0).await, 0);
        assert_eq!(*rig.memory().calls.borrow().last().unwrap(), "flush");
        client.goodbye().await;
        assert_eq!(rig.stop().await, Ended::Stopped);
    });
}

#[test]
fn durable_is_durable_and_a_cache_is_told() {
    run(async {
        for cached in [false, true] {
            let rig = Rig::start(|memory| memory.cached = cached);
            let mut client = rig.connect().await;
            assert_eq!(client.flags & 0b100 != 0, cached, "SEND_FLUSH");
            assert_eq!(client.flags & 0b1000, 0b1000, "SEND_FUA");
            for (flags, command) in [(1, 4), (1, 6), (3, 6)] {
                rig.memory().calls.borrow_mut().clear();
                assert_eq!(client.command(flags, command, 0, 512).await, 0);
                assert_eq!(rig.memory().calls.borrow().contains(&"flush"), cached);
            }
        }
    });
}

#[test]
fn a_failure_is_told_and_the_connection_stays() {
    run(async {
        let rig = Rig::start(|_| {});
        let mut client = rig.connect().await;
        for (weather, value) in [(Weather::Failing, 5), (Weather::Full, 28)] {
            rig.memory().weather.set(weather);
            assert_eq!(client.write(0, &[1; 512]).await, value);
            assert_eq!(client.read(0, 512).await.err(), if value == 28 { Some(28) } else { Some(5) });
        }
        rig.memory().weather.set(Weather::Fair);
        assert_eq!(client.write(SIZE as u64 - 1, &[1; 2]).await, 28, "beyond the end");
        assert_eq!(client.read(SIZE as u64 - 1, 2).await, Err(22));
        assert_eq!(client.read(SIZE as u64, u32::MAX).await, Err(22));
        assert_eq!(client.command(16, 6, 0, 512).await, 22, "FAST_ZERO");
        assert_eq!(client.command(0, 5, 0, 512).await, 22, "NBD_CMD_CACHE");
        let mut reader = Client::connect(&rig.socket, "1").await.unwrap();
        assert_eq!((reader.size, reader.flags & 2), (4096, 2));
        assert_eq!(reader.write(0, &[1; 512]).await, 1, "read-only");
        assert_eq!(reader.command(0, 6, 0, 512).await, 1);
        assert_eq!(reader.read(0, 4096).await, Ok(vec![0; 4096]));
        assert_eq!(client.write(0, &[1; 512]).await, 0, "the others are not disturbed");
        assert!(Client::connect(&rig.socket, "2").await.is_none(), "another export");
    });
}

#[test]
fn a_volume_that_is_taken_away_ends_the_server_and_nothing_is_answered() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = tokio::sync::Semaphore::new(0));
        let mut client = rig.connect().await;
        for cookie in 0..10 {
            client.send(0, 1, cookie, 0, 512, &[1; 512]).await;
        }
        tokio::task::yield_now().await;
        rig.memory().weather.set(Weather::Fenced);
        rig.memory().gate.add_permits(10);
        assert_eq!(rig.server.await.unwrap(), Ended::Fenced);
        assert_eq!(client.answer().await, None);
    });
}

#[test]
fn qemu_reads_and_writes_it() {
    run(async {
        let rig = Rig::start(|_| {});
        let image = rig.socket.with_file_name("image");
        let mut content = vec![0; SIZE];
        content.chunks_exact_mut(997).enumerate().for_each(|(index, piece)| piece.fill((index % 251) as u8));
        std::fs::write(&image, &content).unwrap();
        let url = format!("nbd+unix:///0?socket={}", rig.socket.display());
        for words in
            [&["convert", "-n", "-f", "raw", "-O", "raw"][..], &["compare", "-f", "raw", "-F", "raw"]]
        {
            let output = tokio::process::Command::new("qemu-img").args(words).arg(&image).arg(&url).output();
            let output = output.await.expect("qemu-img is needed: infra/packages test");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(*rig.memory().blocks.borrow() == content);
        assert_eq!(rig.stop().await, Ended::Stopped);
    });
}
