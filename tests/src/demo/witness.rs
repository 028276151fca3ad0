//! Somebody on the provider's management network, who shows that a scan finds what there is: the same scan that finds nothing of
//! the provider's from the place of a node.
//!
//! Ceph, PostgreSQL, the identity provider and the API listen on loopback here. So that a node's scan would find them where it is
//! allowed to look, there is a listener at the management address for each, of the same port.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::Narrator;
use super::inside::sockets_of_process;
use super::scan::{Place, mac_of, scan};
use crate::agent_host::AgentHost;
use crate::host::{output, run};
use crate::management::{ADDRESS, Management};

/// Its address's last number, and its namespace's last name.
const NUMBER: u8 = 99;
/// How long a scan of some addresses may take.
const SCAN: Duration = Duration::from_secs(120);

/// What is there to be found while this lives.
pub(super) struct Witness {
    _listeners: Vec<TcpListener>,
    echo: UdpSocket,
}

impl Witness {
    /// Puts it there, in the network of this thread, and has it found from a machine on the management network.
    pub(super) fn call(narrator: &Narrator, management: &Management, hosts: &[AgentHost]) -> Self {
        let loopback =
            |socket: &String| socket.strip_prefix("tcp 127.0.0.1:").map(|port| port.parse().unwrap());
        let ports: Vec<u16> = sockets_of_process("thread-self").iter().filter_map(loopback).collect();
        let listeners = ports.iter().map(|port| TcpListener::bind((ADDRESS, *port)).unwrap()).collect();
        let echo = UdpSocket::bind((ADDRESS, 0)).unwrap();
        let witness = Self { _listeners: listeners, echo };
        witness.found(narrator, management, hosts);
        witness
    }

    fn found(&self, narrator: &Narrator, management: &Management, hosts: &[AgentHost]) {
        let namespace = format!("{}-witness", management.namespace());
        run("ip", &["netns", "add", &namespace]);
        Management::cable(&namespace, NUMBER);
        let mut goals = vec![(ADDRESS.to_owned(), mac_of(management.namespace(), "mgmt0"))];
        goals.extend(hosts.iter().map(|host| (host.address.clone(), mac_of(&host.namespace, "mgmt"))));
        let (source, port) = (format!("10.99.0.{NUMBER}"), format!("host{NUMBER}"));
        let far_end = (management.namespace(), port.as_str());
        let place = Place { namespace: &namespace, interface: "mgmt", source: &source, far_end };
        let answers = std::thread::scope(|scope| {
            scope.spawn(|| self.echo_once());
            scan(place, &goals).answers
        });
        let _ = output("ip", &["netns", "del", &namespace]);

        let of = |what: &str| -> BTreeSet<&String> {
            answers.iter().filter(|answer| answer.starts_with(what)).collect()
        };
        let open: BTreeSet<String> =
            answers.iter().filter(|answer| answer.ends_with(" open")).cloned().collect();
        let here = sockets_of_process("thread-self");
        let listening = here.iter().filter_map(|socket| {
            let (what, place) = socket.split_once(' ')?;
            let port = [ADDRESS, "0.0.0.0", "[00000000000000000000000000000000]"]
                .iter()
                .find_map(|address| place.strip_prefix(&format!("{address}:")))?;
            Some(format!("{} {ADDRESS} {port} open", what.trim_end_matches('6')))
        });
        let listening: BTreeSet<String> = listening.collect();
        let echo = format!("udp {ADDRESS} {} open", self.echo.local_addr().unwrap().port());
        assert!(listening.contains(&echo), "{echo}: {listening:?}");
        assert_eq!(open, listening, "what the scan finds where it may look, and what there is");
        for (address, _) in &goals {
            assert_eq!(of(&format!("tcp {address} ")).len(), 65_535, "each port of {address} answers");
            let said = of(&format!("icmp {address} "));
            let says = |what: &str| said.iter().any(|it| it.ends_with(what));
            assert!(says(" type 3 code 3"), "{address} says which UDP ports are closed");
            assert!(says(" type 0 code 0"), "{address} answers a ping");
        }
        narrator.say(&format!(
            "a scan from the management network finds the {} ports that are open there, and that all others are closed",
            open.len()
        ));
    }

    /// Answers one datagram.
    fn echo_once(&self) {
        self.echo.set_read_timeout(Some(SCAN)).unwrap();
        let mut buffer = [0; 64];
        if let Ok((length, from)) = self.echo.recv_from(&mut buffer) {
            self.echo.send_to(&buffer[..length], from).unwrap();
        }
    }

    /// Nobody else has come as far as here.
    pub(super) fn heard_nothing(&self) {
        self.echo.set_nonblocking(true).unwrap();
        let heard = self.echo.recv_from(&mut [0; 64]);
        assert!(heard.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{heard:?}");
    }
}
