//! An NBD server (`doc/proto.md`) whose disk has a volatile cache: at a power loss it keeps of what was not flushed
//! whatever it likes, as disks do.
//!
//! It promises as little as the protocol allows. Requests that wait are done in any order; a flush covers the writes that
//! were answered before it came; of a block that was written several times any of the writes may be what is kept.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::random::Random;

/// Requests that wait to be done, at most.
const WAITING: usize = 8;

/// Whether the server knows `NBD_CMD_FLAG_FUA`. Without it a client has to flush after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    Known,
    Unknown,
}

/// What a block was since it was flushed: when that was done, and the bytes.
type Versions = Vec<(u64, Vec<u8>)>;

struct Disk {
    block_size: usize,
    stable: Vec<u8>,
    unflushed: BTreeMap<usize, Versions>,
    /// How many writes were done.
    done: u64,
    /// How often power was lost: what was accepted before is void.
    losses: u64,
    random: Random,
    /// Power is lost when the next zeros are written.
    fuse: bool,
}

impl Disk {
    /// A part of what is read now.
    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let (first, end) = (offset / self.block_size, (offset + length).div_ceil(self.block_size));
        let all: Vec<u8> = (first..end).flat_map(|block| self.block(block).to_vec()).collect();
        let skip = offset - first * self.block_size;
        all[skip..skip + length].to_vec()
    }

    fn block(&self, block: usize) -> &[u8] {
        match self.unflushed.get(&block).and_then(|versions| versions.last()) {
            Some((_, bytes)) => bytes,
            None => &self.stable[block * self.block_size..][..self.block_size],
        }
    }

    fn write(&mut self, offset: usize, data: &[u8], forced: bool) {
        let (first, end) = (offset / self.block_size, (offset + data.len()).div_ceil(self.block_size));
        let mut all = self.read(first * self.block_size, (end - first) * self.block_size);
        let skip = offset - first * self.block_size;
        all[skip..skip + data.len()].copy_from_slice(data);
        self.done += 1;
        for (block, bytes) in (first..end).zip(all.chunks(self.block_size)) {
            if forced {
                self.unflushed.remove(&block);
                self.stable[block * self.block_size..][..self.block_size].copy_from_slice(bytes);
            } else {
                self.unflushed.entry(block).or_default().push((self.done, bytes.to_vec()));
            }
        }
    }

    /// Makes durable what had been done then.
    fn flush(&mut self, done: u64) {
        let (size, stable) = (self.block_size, &mut self.stable);
        self.unflushed.retain(|block, versions| {
            let covered = versions.partition_point(|(when, _)| *when <= done);
            if let Some((_, bytes)) = versions.drain(..covered).next_back() {
                stable[block * size..][..size].copy_from_slice(&bytes);
            }
            !versions.is_empty()
        });
    }

    fn lose_power(&mut self) {
        self.losses += 1;
        for (block, versions) in std::mem::take(&mut self.unflushed) {
            let kept = self.random.below(versions.len() as u64 + 1) as usize;
            if let Some((_, bytes)) = versions.get(kept) {
                self.stable[block * self.block_size..][..self.block_size].copy_from_slice(bytes);
            }
        }
    }
}

struct Shared {
    disk: Mutex<Disk>,
    connections: Mutex<Vec<UnixStream>>,
    forced: Forced,
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose_power(&self, disk: &mut Disk) {
        disk.lose_power();
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The server, for as long as the test runs.
pub struct Store {
    shared: Arc<Shared>,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Store {
    /// A disk of zeros. Its blocks are written whole or not at all.
    pub fn start(blocks: u64, block_size: usize, forced: Forced, random: Random) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let stable = vec![0; blocks as usize * block_size];
        let disk =
            Disk { block_size, stable, unflushed: BTreeMap::new(), done: 0, losses: 0, random, fuse: false };
        let shared = Arc::new(Shared { disk: Mutex::new(disk), connections: Mutex::default(), forced });
        let listener = UnixListener::bind(&socket).unwrap();
        let accept = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accept);
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                // It ends with its connection, in whatever state that is.
                thread::spawn(move || serve(&shared, stream));
            }
        });
        Self { shared, socket, _directory: directory }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Loses power, and has it back at once.
    pub fn lose_power(&self) {
        let mut disk = self.shared.disk();
        self.shared.lose_power(&mut disk);
    }

    /// Lets it lose power right after the next UNMAP or WRITE SAME of zeros was done and answered.
    pub fn lose_power_at_zeros(&self) {
        self.shared.disk().fuse = true;
    }

    /// How many blocks a power loss would take now.
    pub fn unflushed(&self) -> usize {
        self.shared.disk().unflushed.len()
    }
}

struct Request {
    flags: u16,
    kind: u16,
    cookie: [u8; 8],
    offset: usize,
    length: usize,
    data: Vec<u8>,
    /// The writes that were done when it came.
    came: u64,
}

/// What waits to be done, and whether no more will come.
#[derive(Default)]
struct Queue {
    waiting: Mutex<(Vec<Request>, bool)>,
    changed: Condvar,
}

fn serve(shared: &Arc<Shared>, mut stream: UnixStream) {
    let losses = shared.disk().losses;
    if negotiate(shared, &mut stream).is_none() {
        return;
    }
    let queue = Arc::new(Queue::default());
    let (theirs, answers, all) = (Arc::clone(&queue), stream.try_clone().unwrap(), Arc::clone(shared));
    let random = shared.disk().random.fork();
    let worker = thread::spawn(move || work(&all, &theirs, answers, losses, random));
    while let Some(request) = next(shared, &mut stream) {
        let waiting = queue.waiting.lock().unwrap();
        let mut waiting = queue.changed.wait_while(waiting, |it| it.0.len() >= WAITING && !it.1).unwrap();
        waiting.0.push(request);
        queue.changed.notify_all();
        if waiting.1 {
            break;
        }
    }
    queue.waiting.lock().unwrap().1 = true;
    queue.changed.notify_all();
    let _ = worker.join();
}

/// Does what waits, one after the other, in any order.
fn work(shared: &Shared, queue: &Queue, mut answers: UnixStream, losses: u64, mut random: Random) {
    loop {
        let waiting = queue.waiting.lock().unwrap();
        let mut waiting = queue.changed.wait_while(waiting, |it| it.0.is_empty() && !it.1).unwrap();
        if waiting.0.is_empty() {
            return;
        }
        let chosen = random.below(waiting.0.len() as u64) as usize;
        let request = waiting.0.swap_remove(chosen);
        queue.changed.notify_all();
        drop(waiting);
        let mut reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &request.cookie].concat();
        let mut disk = shared.disk();
        if disk.losses != losses {
            break;
        }
        match request.kind {
            0 => reply.extend(disk.read(request.offset, request.length)),
            1 => disk.write(request.offset, &request.data, request.flags & 1 != 0),
            3 => disk.flush(request.came),
            // NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES.
            4 | 6 => disk.write(request.offset, &vec![0; request.length], request.flags & 1 != 0),
            other => panic!("request of type {other}"),
        }
        // While the disk is held: nobody hears of what a power loss takes before it.
        if answers.write_all(&reply).is_err() {
            break;
        }
        if disk.fuse && matches!(request.kind, 4 | 6) {
            disk.fuse = false;
            shared.lose_power(&mut disk);
        }
    }
    queue.waiting.lock().unwrap().1 = true;
    queue.changed.notify_all();
}

fn take<const N: usize>(stream: &mut UnixStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).ok().map(|()| bytes)
}

/// "Request message".
fn next(shared: &Shared, stream: &mut UnixStream) -> Option<Request> {
    let head: [u8; 28] = take(stream)?;
    assert_eq!(head[..4], 0x2560_9513_u32.to_be_bytes());
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (flags, kind) = (number(4..6) as u16, number(6..8) as u16);
    // NBD_CMD_DISC.
    if kind == 2 {
        return None;
    }
    let (offset, length) = (number(16..24), number(24..28));
    let mut data = vec![0; if kind == 1 { length } else { 0 }];
    stream.read_exact(&mut data).ok()?;
    let came = shared.disk().done;
    Some(Request { flags, kind, cookie: head[8..16].try_into().unwrap(), offset, length, data, came })
}

/// "Fixed newstyle negotiation", up to `NBD_OPT_GO`.
fn negotiate(shared: &Shared, stream: &mut UnixStream) -> Option<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").ok()?;
    let _flags: [u8; 4] = take(stream)?;
    loop {
        let _magic: [u8; 8] = take(stream)?;
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        std::io::copy(&mut stream.take(length.into()), &mut std::io::sink()).ok()?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
            for word in [option, kind, data.len() as u32] {
                bytes.extend(word.to_be_bytes());
            }
            stream.write_all(&[&bytes[..], data].concat()).ok()
        };
        if option == 7 {
            let disk = shared.disk();
            // HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_WRITE_ZEROES; SEND_FUA.
            let flags: u16 = 0b110_0101 | if shared.forced == Forced::Known { 0b1000 } else { 0 };
            let size = disk.stable.len() as u64;
            reply(3, &[&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())?;
            let block = (disk.block_size as u32).to_be_bytes();
            reply(3, &[&[0, 3][..], &block, &block, &(1_u32 << 25).to_be_bytes()].concat())?;
            return reply(1, &[]);
        }
        reply((1 << 31) + 1, &[])?;
    }
}
