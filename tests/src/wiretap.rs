//! iSCSI logins as they are on a node's cable: tcpdump, and the login PDUs read out of what it
//! wrote (RFC 7143 sections 11.12, 11.13).
//!
//! Deliberately absent: everything after the logins, IPv6, lost packets (a connection whose beginning has a hole ends there).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use crate::deployment::Deployment;
use crate::host::{command, end, output, until};
use crate::node::Node;

/// Bytes of a packet that are kept: more than a login has.
const KEPT: &str = "2048";
/// What goes to a target, and of what it sends the login responses.
const FILTER: &str =
    "tcp dst port 3260 or (tcp src port 3260 and tcp[((tcp[12:1] & 0xf0) >> 2):1] & 0x3f = 0x23)";

/// What one connection said to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// From where.
    pub peer: SocketAddr,
    /// `InitiatorName`.
    pub initiator: String,
    /// The ISID of all its requests.
    pub isid: [u8; 6],
    /// The TSIH of all its requests: 0 asks for a new session.
    pub tsih: u16,
    /// The TSIH in the last response: that of the session.
    pub given: u16,
    /// Status class and detail of the last response.
    pub status: u16,
}

/// A running tcpdump. It ends when it goes out of scope.
#[derive(Debug)]
pub struct Wiretap {
    child: Child,
    file: PathBuf,
}

impl Wiretap {
    /// Listens where a node is plugged into the bridge that was just switched on. (What is between two ports is not seen at
    /// the bridge itself: its rules let nothing up that is not for it.)
    #[must_use]
    pub fn start(deployment: &Deployment, node: &Node) -> Self {
        let tap = node.tap();
        until("the node has a cable", Duration::from_secs(10), || {
            let looked = output("ip", &["-n", &deployment.namespace, "link", "show", &tap, "up"]);
            looked.status.success().then_some(())
        });
        let (file, log) = (deployment.data.join("logins.pcap"), deployment.data.join("log/tcpdump.log"));
        let child = command(Path::new("/usr/bin/env"))
            .args([
                "ip",
                "netns",
                "exec",
                &deployment.namespace,
                "tcpdump",
                "-Z",
                "root",
                "-i",
                &tap,
                "-U",
                "--immediate-mode",
            ])
            .args(["-s", KEPT, "-w", file.to_str().unwrap(), FILTER])
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .spawn();
        let mut wiretap = Self { child: child.unwrap(), file };
        until("tcpdump listens", Duration::from_secs(10), || {
            let said = std::fs::read_to_string(&log).unwrap();
            let ended = wiretap.child.try_wait().unwrap();
            assert!(ended.is_none(), "tcpdump ended ({ended:?}): {said}");
            said.contains("listening on").then_some(())
        });
        wiretap
    }

    /// All logins so far, in the order they began.
    #[must_use]
    pub fn logins(&self) -> Vec<Login> {
        logins(&std::fs::read(&self.file).unwrap())
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What a connection has said, as far as it is known.
#[derive(Default)]
struct Stream {
    /// The sequence number of the first byte.
    start: Option<u32>,
    said: Vec<u8>,
    /// What may be login responses, or parts of other PDUs that look so.
    answers: Vec<Vec<u8>>,
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Reads a capture file (pcap, little-endian, Ethernet).
fn logins(capture: &[u8]) -> Vec<Login> {
    let mut streams: BTreeMap<SocketAddr, Stream> = BTreeMap::new();
    let mut order = Vec::new();
    let mut rest = &capture[24..];
    while rest.len() >= 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        // The last packet may not be written whole yet.
        let Some(packet) = rest.get(16..16 + length) else { break };
        rest = &rest[16 + length..];
        let (network, size) = (&packet[14..], number(&packet[16..18]));
        let transport = &network[usize::from(network[0] & 0x0f) * 4..];
        let header = usize::from(transport[12] >> 4) * 4;
        // Short frames are padded.
        let data = transport.len().min(size - usize::from(network[0] & 0x0f) * 4);
        let (ports, data) = ([number(&transport[..2]), number(&transport[2..4])], &transport[header..data]);
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&network[at..at + 4]).unwrap());
        let answers = ports[0] == 3260;
        let (address, port) = if answers { (address(16), ports[1]) } else { (address(12), ports[0]) };
        let peer = SocketAddr::from((address, u16::try_from(port).unwrap()));
        let stream = streams.entry(peer).or_default();
        if answers {
            stream.answers.push(data.to_vec());
            continue;
        }
        let sequence = u32::from_be_bytes(transport[4..8].try_into().unwrap());
        // SYN takes one number.
        if transport[13] & 0x02 != 0 {
            stream.start = Some(sequence.wrapping_add(1));
            order.push(peer);
            continue;
        }
        // What is next; repeats and what comes after a hole are left out.
        if stream.start.is_some_and(|start| sequence.wrapping_sub(start) as usize == stream.said.len()) {
            stream.said.extend(data);
        }
    }
    order.dedup();
    order.into_iter().filter_map(|peer| login(peer, streams.get(&peer)?)).collect()
}

/// The login of a stream that begins with one.
fn login(peer: SocketAddr, stream: &Stream) -> Option<Login> {
    let (mut requests, mut tags) = (Vec::new(), Vec::new());
    let (mut rest, mut text) = (&stream.said[..], Vec::new());
    while rest.len() >= 48 && rest[0] & 0x3f == 0x03 {
        let length = number(&rest[5..8]);
        let Some(data) = rest.get(48..48 + length) else { break };
        requests.push((<[u8; 6]>::try_from(&rest[8..14]).unwrap(), number(&rest[14..16])));
        tags.push(rest[16..20].to_vec());
        text.extend(data);
        rest = rest.get(48 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    let (isid, tsih) = *requests.first()?;
    assert!(requests.iter().all(|request| *request == (isid, tsih)), "{peer} changes its mind: {requests:?}");
    let keys = String::from_utf8_lossy(&text);
    let initiator = keys.split('\0').find_map(|pair| pair.strip_prefix("InitiatorName="))?.to_owned();
    // A response has the ISID and the tag of its request.
    let fits = |answer: &&Vec<u8>| {
        answer.len() >= 48 && answer[8..14] == isid && tags.iter().any(|tag| answer[16..20] == tag[..])
    };
    let response = stream.answers.iter().rfind(fits)?;
    let (given, status) = (number(&response[14..16]), number(&response[36..38]));
    let short = |number: usize| u16::try_from(number).unwrap();
    Some(Login { peer, initiator, isid, tsih: short(tsih), given: short(given), status: short(status) })
}
