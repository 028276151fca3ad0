//! Requests over connections that are kept, each as soon as the one before is answered: a closed loop, with every
//! answer's time.
//!
//! Deliberately absent: pipelining, and a fixed rate. A server that is slow is asked less often, so the times say
//! nothing about a crowd that does not wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bmi_tests::Api;

use crate::percentile;

/// The longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read at once: a page of 100 nodes has about 30 000.
const BUFFER: usize = 64 << 10;

/// What is asked for: paths in turns, of servers in turns.
pub(crate) struct Load<'a> {
    pub(crate) servers: &'a [Api],
    pub(crate) paths: &'a [String],
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What came of it.
pub(crate) struct Loaded {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::with_capacity(BUFFER) }
    }

    /// One request and its whole answer, which must be 200.
    fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).unwrap();
        self.buffer.clear();
        let mut chunk = [0; BUFFER];
        loop {
            let read = self.stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&chunk[..read]);
            if whole(&self.buffer) {
                return;
            }
        }
    }
}

/// Whether an answer has arrived, which must say its length.
fn whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{}", String::from_utf8_lossy(bytes));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
    bytes.len() - end - 4 >= length.trim().parse::<usize>().unwrap()
}

/// A request that keeps its connection.
fn request(server: &Api, path: &str) -> Vec<u8> {
    (server.head("GET", path, &[]).replace("Connection: close\r\n", "") + "\r\n").into_bytes()
}

fn one(load: &Load<'_>, number: usize, together: &Barrier) -> Vec<f64> {
    let server = &load.servers[number % load.servers.len()];
    let requests: Vec<Vec<u8>> = load.paths.iter().map(|path| request(server, path)).collect();
    let mut connection = Connection::open(server.address());
    let mut times = Vec::new();
    together.wait();
    let counted = Instant::now() + load.warm_up;
    let end = counted + load.duration;
    for request in requests.iter().cycle().skip(number) {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        connection.ask(request);
        if begun >= counted {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    times
}

impl Load<'_> {
    /// Asks for as long as was said.
    pub(crate) fn run(&self) -> Loaded {
        let together = Barrier::new(self.connections);
        let times: Vec<f64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|number| {
                    let together = &together;
                    scope.spawn(move || one(self, number, together))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        Loaded {
            per_second: times.len() as f64 / self.duration.as_secs_f64(),
            p50_ms: percentile(&times, 50),
            p99_ms: percentile(&times, 99),
        }
    }
}
