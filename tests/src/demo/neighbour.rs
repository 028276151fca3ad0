//! A tenant's other node, which is on and works while its neighbours are attacked: it writes to its disk all the time, reads back
//! what was acknowledged, and hears whatever comes in at its NIC (`ears.py`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::inside::containers;
use super::scan::{Place, mac_of, program, scan};
use super::tenant::{Tenant, node};
use super::wire::at;
use crate::agent_host::AgentHost;
use crate::client::Client;
use crate::disk::{Disk, Session};
use crate::host::{run, until};

/// Which of the tenant's nodes it is. The first is the one that is taken over.
pub(super) const NUMBER: u8 = 2;
/// Its name as a machine, and the end of its cable in the bridge.
const NAME: &str = "neighbour";
const PORT: &str = "port-neighbour";
/// The last number of an address that nobody has.
const ASKER: u8 = 250;
/// What it writes at once, in bytes.
const BLOCK: u32 = 4096;
/// Blocks that it writes, one after the other, and then again: few enough to be read once more at the end.
const BLOCKS: u32 = 256;
/// How long it rests after each, so that it leaves the processors to others.
const PACE: Duration = Duration::from_millis(20);
/// How long it keeps a session. A tool of `Disk` is ended after three minutes.
const SESSION: Duration = Duration::from_secs(100);
/// Blocks that it writes at least while something is done to it, which takes seconds: a tenth of what it could.
const PROGRESS: u32 = 10;
/// How long boot services may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(60);

/// The node.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// Its network.
    pub network: &'static str,
    /// Its address there.
    pub address: String,
    /// Its NIC's MAC.
    pub mac: String,
    client: Client,
    work: Arc<Work>,
    writer: Option<JoinHandle<()>>,
    ears: Child,
    said: BufReader<ChildStdout>,
}

/// How far it has come, and whether that is enough.
#[derive(Debug, Default)]
struct Work {
    acknowledged: AtomicU32,
    over: AtomicBool,
}

/// The command that reads or writes the block that is the `count`th to be written.
fn command(verb: &str, count: u32) -> String {
    // Another byte for each block, and for each time that it is written.
    let (pattern, place) = (1 + count * 7 % 251, count % BLOCKS * BLOCK);
    format!("{verb} -P {pattern} {place} {BLOCK}")
}

impl Work {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Writes until it is over. Ends by panicking when something that was acknowledged is not there.
    fn go_on(&self, disk: &Disk) {
        let mut count = 0;
        while !self.is_over() {
            let mut session = Session::open(disk);
            let end = Instant::now() + SESSION;
            while !self.is_over() && Instant::now() < end {
                session.does(&command("write", count));
                session.does(&command("read", count));
                count += 1;
                self.acknowledged.store(count, Ordering::Relaxed);
                std::thread::sleep(PACE);
            }
            session.close();
        }
        // What each block was last.
        let mut session = Session::open(disk);
        for written in count.saturating_sub(BLOCKS)..count {
            session.does(&command("read", written));
        }
        session.close();
    }
}

impl Neighbour {
    /// Switches it on: it boots as firmware does, and then it works.
    pub(super) fn start(tenant: &Tenant, host: &AgentHost) -> Self {
        let (_, mac) = node(tenant.project, NUMBER);
        let client = Client::new(host, NAME, &mac);
        let (address, _) = client.dhcp();
        let disk = Disk::of(&client);
        would_answer(host, &client, &at(tenant.network, ASKER), (&address, &mac));
        let mut ears = program(client.namespace(), "ears.py").arg("eth0").spawn().unwrap();
        let mut said = BufReader::new(ears.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "hears\n");
        let work = Arc::<Work>::default();
        let writer = std::thread::spawn({
            let work = Arc::clone(&work);
            move || work.go_on(&disk)
        });
        Self { network: tenant.network, address, mac, client, work, writer: Some(writer), ears, said }
    }

    fn acknowledged(&self) -> u32 {
        self.work.acknowledged.load(Ordering::Relaxed)
    }

    /// The end of its work: everything that was acknowledged is there, its NIC heard its target and the boot services and nobody
    /// else, and it boots as ever. Gives how many blocks it has written.
    pub(super) fn finish(mut self, host: &AgentHost) -> u32 {
        let network = self.network;
        self.work.over.store(true, Ordering::Relaxed);
        let written = self.writer.take().unwrap().join();
        assert!(written.is_ok(), "{network}: what was acknowledged is not there, or a write failed");

        drop(self.ears.stdin.take());
        let mut told = String::new();
        self.said.read_to_string(&mut told).unwrap();
        assert!(self.ears.wait().unwrap().success());
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["missed"], 0, "{network}: the kernel had no room for what was heard");
        let ours: BTreeSet<String> = containers(&host.engine).into_iter().map(|inside| inside.mac).collect();
        // The bridge's end of its cable greets it when the cable is new, as a scan knows.
        let greets = mac_of(&host.namespace, PORT);
        let mut from_ours = 0;
        for heard in told["heard"].as_array().unwrap() {
            let (mac, kind) = (heard[0].as_str().unwrap(), heard[1].as_str().unwrap());
            if ours.contains(mac) {
                from_ours += heard[2].as_u64().unwrap();
            } else {
                assert!(mac == greets && kind == "0x86dd", "{network}: a node heard {heard}");
            }
        }
        let count = self.acknowledged();
        assert!(from_ours >= u64::from(count), "{network}: {from_ours} frames for {count} blocks");

        until("it boots again", BOOT, || {
            let script = self.client.script(&self.client.dhcp().1);
            (script.contains("set password ") && self.client.login(&script)).then_some(())
        });
        count
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.work.over.store(true, Ordering::Relaxed);
        drop(self.ears.stdin.take());
    }
}

/// That a scan would find it if anything led there: from the other end of its cable, past the bridge's rules, every port answers,
/// and so does a ping.
fn would_answer(host: &AgentHost, client: &Client, asker: &str, (address, mac): (&str, &str)) {
    let asks = mac_of(&host.namespace, PORT);
    let known = |verb: &str| {
        let words = ["-n", client.namespace(), "neigh", verb, asker, "lladdr", &asks, "dev", "eth0"];
        run("ip", &words);
    };
    known("replace");
    let far_end = (client.namespace(), "eth0");
    let place = Place { namespace: &host.namespace, interface: PORT, source: asker, far_end };
    let answers = scan(place, &[(address.to_owned(), mac.to_owned())]).answers;
    known("del");
    let count = |begins: &str, ends: &str| {
        let begins = format!("{begins} {address} ");
        answers.iter().filter(|answer| answer.starts_with(&begins) && answer.ends_with(ends)).count()
    };
    assert_eq!(count("tcp", " closed"), 65_535, "each port of {address} would answer");
    assert!(count("icmp", " type 3 code 3") > 0, "{address} would say which UDP ports are closed");
    assert_eq!(count("icmp", " type 0 code 0"), 1, "{address} would answer a ping");
}

/// Does something, during which each of some nodes gets on with its work.
pub(super) fn work_goes_on<T>(neighbours: &[Neighbour], what: &str, does: impl FnOnce() -> T) -> T {
    let before: Vec<u32> = neighbours.iter().map(Neighbour::acknowledged).collect();
    let given = does();
    for (neighbour, before) in neighbours.iter().zip(before) {
        let done = neighbour.acknowledged() - before;
        assert!(done >= PROGRESS, "{}: a node wrote {done} blocks during {what}", neighbour.network);
    }
    given
}
