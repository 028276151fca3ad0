//! What a node with any Ethernet frame at its disposal can do to the others: nothing that these tests know of.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use bmi_agent_api::status::ServiceStatus;
use bmi_types::MacAddr;
use serde_json::Value;
use support::{Host, connects, desired, fetch, instance, mac, reaches, run, until};

/// Sends Ethernet frames, one hexadecimal line each. With an argument, waits for the answer to that DHCP transaction
/// and prints the address in it.
const SEND: &str = "\
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
raw.bind(('eth0', 0))
for line in sys.stdin: raw.send(bytes.fromhex(line))
raw.settimeout(1.5)
try:
    while sys.argv[1:]:
        answer = raw.recv(2000)
        if answer[34:38] == b'\\0\\x43\\0\\x44' and answer[46:50].hex() == sys.argv[1]:
            print(socket.inet_ntoa(answer[58:62]))
            break
except TimeoutError: pass
";

/// Sends one DHCP packet from as many MACs as it is told, as fast as it can.
const FLOOD: &str = "\
import socket, sys, time
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0))
frame = bytearray.fromhex(sys.stdin.readline())
for number in range(int(sys.argv[1])):
    frame[6:12] = frame[70:76] = b'\\x02' + number.to_bytes(4, 'big') + b'\\x09'
    while True:
        try: raw.send(frame); break
        except OSError: time.sleep(0.001)
";

/// Opens connections to the boot services and asks for a loader on each without reading it, and says how many it has.
const HOLD: &str = "\
import socket, sys
sys.stdin.readline()
held = []
for _ in range(40):
    one = socket.socket()
    one.settimeout(0.2)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    try: one.connect(('10.20.0.2', 80))
    except OSError: continue
    one.send(b'GET /loaders/undionly.kpxe HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    held.append(one)
print(len(held), flush=True)
sys.stdin.readline()
";

/// DHCP messages (RFC 2132 section 9.6): the one is answered, the other changes nothing.
const DISCOVER: u8 = 1;
const INFORM: u8 = 8;

/// To everybody.
const BROADCAST: [u8; 6] = [0xff; 6];

/// To the neighbouring bridge (LLDP): no bridge passes it on.
const LINK_LOCAL: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];

/// An Ethernet frame of a protocol nobody speaks.
fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], &[0; 50]].concat()
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

/// A DHCP packet for everybody.
fn dhcp(source: MacAddr, nic: MacAddr, transaction: u32, kind: u8) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0, 0, 0x80, 0]);
    message.extend([0; 16]);
    message.extend(nic.octets());
    message.extend([0; 10 + 192]);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind, 255]);
    let length = u16::try_from(message.len()).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend((28 + length).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut udp = vec![0, 68, 0, 67];
    udp.extend((8 + length).to_be_bytes());
    udp.extend([0, 0]);
    [&BROADCAST[..], &source.octets(), &[8, 0], &ip, &udp, &message].concat()
}

fn python(node: &str, script: &str, argument: &str, line: &str) -> Child {
    let mut python = Command::new("ip")
        .args(["netns", "exec", node, "python3", "-c", script])
        .args((!argument.is_empty()).then_some(argument))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    python
}

fn send(node: &str, frame: &[u8]) {
    assert!(python(node, SEND, "", &hex(frame)).wait().unwrap().success());
}

/// The address a node is offered, when it is answered.
fn offered(node: &str, source: MacAddr, nic: MacAddr, transaction: u32) -> Option<String> {
    let packet = dhcp(source, nic, transaction, DISCOVER);
    let output = python(node, SEND, &format!("{transaction:08x}"), &hex(&packet)).wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()).filter(|address| !address.is_empty())
}

fn address_set(node: &str, address: &str) {
    run("ip", &["-n", node, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
}

/// The MAC at which a node finds an address.
fn found_at(node: &str, address: &str) -> MacAddr {
    let found: Value =
        serde_json::from_str(&run("ip", &["-n", node, "-j", "neigh", "show", address])).unwrap();
    found[0]["lladdr"].as_str().unwrap().parse().unwrap()
}

/// The port at which the bridge looks for a MAC.
fn port_of(host: &Host, mac: MacAddr) -> String {
    let table = run("bridge", &["-n", &host.namespace, "-j", "fdb", "show", "br", "bmi0"]);
    let table: Value = serde_json::from_str(&table).unwrap();
    let entry = table.as_array().unwrap().iter().find(|entry| entry["mac"] == *mac.to_string());
    entry.unwrap()["ifname"].as_str().unwrap().to_owned()
}

#[test]
fn a_frame_with_a_process_mac_does_not_move_it() {
    let mut host = Host::new("moved");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, neighbour) = (host.node(1, mac(1)), host.node(2, mac(2)));
    address_set(&node, "10.20.0.71");
    for (address, port) in [("10.20.0.9", 3260), ("10.20.0.2", 80)] {
        assert!(reaches(&node, address, port), "before");
        let process = found_at(&node, address);
        let before = port_of(&host, process);
        for to in [BROADCAST, LINK_LOCAL] {
            send(&neighbour, &frame(to, process.octets()));
            assert_eq!(port_of(&host, process), before, "the bridge learned {process} from a neighbour");
            assert!(reaches(&node, address, port), "after a frame with the MAC of {address}");
        }
    }
    // Also without any rule: the bridge knows our ports for good.
    run("ip", &["netns", "exec", &host.namespace, "nft", "delete", "table", "bridge", "bmi_bmi0"]);
    for address in ["10.20.0.9", "10.20.0.2"] {
        let process = found_at(&node, address);
        let before = port_of(&host, process);
        send(&neighbour, &frame(BROADCAST, process.octets()));
        assert_eq!(port_of(&host, process), before, "the bridge learned {process} without rules");
    }
}

#[test]
fn invented_macs_do_not_end_dhcp() {
    let mut host = Host::new("flood");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, stranger, hostile) = (host.node(1, mac(1)), host.node(3, mac(3)), host.node(2, mac(2)));
    assert!(offered(&stranger, mac(3), mac(3), 1).is_some(), "before");

    // More than any table of limits holds; then for as long as the node needs.
    let packet = hex(&dhcp(mac(2), mac(2), 2, INFORM));
    assert!(python(&hostile, FLOOD, "70000", &packet).wait().unwrap().success());
    let mut flood = python(&hostile, FLOOD, "10000000", &packet);
    // Firmware asks again when it is not answered.
    for round in 0..5 {
        let answer = (0..4).find_map(|again| offered(&node, mac(1), mac(1), 100 + 10 * round + again));
        assert_eq!(answer.as_deref(), Some("10.20.0.71"), "a node that was never seen, during the flood");
    }
    assert_eq!(flood.try_wait().unwrap(), None, "it goes on");
    flood.kill().unwrap();
    flood.wait().unwrap();
    let mut transactions = 8..;
    until("a stranger is answered after the flood", || {
        offered(&stranger, mac(4), mac(4), transactions.next().unwrap())
    });
}

#[test]
fn a_request_in_a_nodes_name_is_that_nodes() {
    let mut host = Host::new("name");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, neighbour) = (host.node(1, mac(1)), host.node(2, mac(2)));
    assert_eq!(offered(&neighbour, mac(2), mac(1), 1), None, "the node's NIC from another's");
    assert_eq!(offered(&node, mac(1), mac(2), 2), None, "another's NIC from the node's");
    assert_eq!(offered(&node, mac(1), mac(1), 3).as_deref(), Some("10.20.0.71"));
    assert!(offered(&neighbour, mac(2), mac(2), 4).is_some(), "a stranger in its own name");
}

#[test]
fn who_keeps_connections_open_has_a_few_of_them_and_others_are_served() {
    let mut host = Host::new("held");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, stranger) = (host.node(1, mac(1)), host.node(2, mac(2)));
    address_set(&node, "10.20.0.71");
    let address = offered(&stranger, mac(2), mac(2), 1).unwrap();
    address_set(&stranger, &address);
    assert!(reaches(&stranger, "10.20.0.2", 80));
    let words = ["netns", "exec", &stranger, "python3", "-c", HOLD];
    let mut holder = Command::new("ip");
    let holder = holder.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut orders = holder.stdin.take().unwrap();
    writeln!(orders, "go").unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let held: u32 = said.trim().parse().unwrap();
    assert!((1..=16).contains(&held), "{held} connections");
    assert!(!connects(&stranger, "10.20.0.2", 80), "it has all it may");
    assert!(fetch(&node, "http://10.20.0.2/boot/00").starts_with("#!ipxe"), "others are served");
    drop(orders);
    holder.wait().unwrap();
    until("it may again", || connects(&stranger, "10.20.0.2", 80).then_some(()));
}
