//! Every port of an address: a TCP SYN and a UDP datagram to each, a ping, and whatever comes back. `scan.py` is who asks, in the
//! network namespace of a machine, by frames of its own making.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::host::{repository, run};

/// What answered: `tcp ADDRESS PORT SAID`, and so on; the port is the one that was asked.
pub(super) type Answers = BTreeSet<String>;

/// What a scan found.
#[derive(Debug)]
pub(super) struct Found {
    /// What answered.
    pub answers: Answers,
    /// Who sent something that came in and was for another MAC.
    pub overheard: BTreeSet<String>,
    /// The MACs of whoever sent anything that came in, ARP as well.
    pub heard: BTreeSet<String>,
    /// How many frames were sent.
    pub sent: u64,
}

/// Who scans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its network namespace.
    pub namespace: &'a str,
    /// Its interface.
    pub interface: &'a str,
    /// The address that it sends from.
    pub source: &'a str,
    /// The other end of its cable: namespace and interface. Each frame must arrive there.
    pub far_end: (&'a str, &'a str),
}

impl Place<'_> {
    /// Frames that came out at the other end of its cable.
    pub(super) fn arrived(&self) -> u64 {
        let (namespace, interface) = self.far_end;
        let words = ["-n", namespace, "-s", "-j", "link", "show", interface];
        let shown: Value = serde_json::from_str(&run("ip", &words)).unwrap();
        shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }
}

/// The MAC of an interface.
pub(super) fn mac_of(namespace: &str, interface: &str) -> String {
    let shown: Value =
        serde_json::from_str(&run("ip", &["-n", namespace, "-j", "link", "show", interface])).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

/// A program that is beside this file, in a network namespace. It reads what it is to do, and says what it did.
pub(super) fn program(namespace: &str, name: &str) -> Command {
    let mut python = Command::new("ip");
    python.args(["netns", "exec", namespace, "/usr/bin/python3", "-B"]);
    python.arg(repository().join("tests/src/demo").join(name)).stdin(Stdio::piped()).stdout(Stdio::piped());
    python
}

/// Asks every port of each address, with frames to the MAC beside it. Gives what came of it.
pub(super) fn scan(place: Place<'_>, goals: &[(String, String)]) -> Found {
    let Place { namespace, interface, source, far_end } = place;
    let world = json!({
        "interface": interface, "source": source, "mac": mac_of(namespace, interface), "goals": goals,
    });
    let before = place.arrived();
    let mut child = program(namespace, "scan.py").spawn().unwrap();
    child.stdin.take().unwrap().write_all(world.to_string().as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "the scan: {}", ended.status);
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let sent = told["sent"].as_u64().unwrap();
    assert_eq!(told["missed"], 0, "the kernel had no room for answers");
    let arrived = place.arrived() - before;
    assert!(arrived >= sent, "{sent} frames were sent, {arrived} were on the wire");
    let line = |answer: &Value| {
        let part = |at: usize| answer[at].as_str().unwrap().to_owned();
        format!("{} {} {} {}", part(0), part(1), answer[2], part(3))
    };
    let mut answers: Answers = told["answers"].as_array().unwrap().iter().map(line).collect();
    // The far end's own kernel greets its neighbours when the cable is new (IPv6 router solicitation, multicast).
    answers.remove(&format!("frame {} 0 ethertype 0x86dd", mac_of(far_end.0, far_end.1)));
    let texts = |name: &str| {
        let all = told[name].as_array().unwrap().iter();
        all.map(|it| it.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    Found { answers, overheard: texts("overheard"), heard: texts("heard"), sent }
}
