//! A node behind a real relay and router: dnsmasq relays its DHCP, the kernel routes the rest.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::process::{Child, Command, Stdio};

use bmi_agent_api::event::{AgentEvent, EventSource, NetbootEvent};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::MacAddr;
use support::{
    Host, address_take, connects, desired, dhcp, dhcp_try, fetch, instance, login, mac, output, run, script,
    until,
};

const RELAY: &str = "10.20.0.4";

/// A router with the bridge on one side and a wire of its own on the other, and a machine on that wire.
fn router(host: &mut Host) -> (String, String) {
    let router = host.node(9, mac(9));
    let node = host.namespace_add("far");
    let wire = ["link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", &node];
    run("ip", &[&["-n", &router][..], &wire].concat());
    run("ip", &["-n", &node, "link", "set", "eth0", "address", &mac(1).to_string(), "up"]);
    run("ip", &["-n", &router, "link", "set", "lan", "up"]);
    run("ip", &["-n", &router, "link", "set", "lo", "up"]);
    run("ip", &["-n", &router, "addr", "add", &format!("{RELAY}/24"), "dev", "lan"]);
    for near in ["10.20.0.2", "10.20.0.9"] {
        run("ip", &["-n", &router, "route", "add", near, "dev", "eth0", "src", RELAY]);
    }
    let settings =
        "for f in ip_forward conf/eth0/proxy_arp conf/lan/proxy_arp; do echo 1 >/proc/sys/net/ipv4/$f; done";
    run("ip", &["netns", "exec", &router, "sh", "-c", settings]);
    (router, node)
}

/// The NIC of the node behind the router.
fn mac_of_node() -> MacAddr {
    mac(1)
}

struct Relay(Child);

impl Relay {
    fn start(router: &str) -> Self {
        let mut relay = Command::new("ip");
        relay.args([
            "netns",
            "exec",
            router,
            "dnsmasq",
            "--no-daemon",
            "--user=root",
            "--conf-file=/dev/null",
        ]);
        relay.args(["--port=0", "--pid-file=", "--log-dhcp", "--interface=lan", "--interface=eth0"]);
        relay.arg(format!("--dhcp-relay={RELAY},10.20.0.2"));
        Self(relay.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_behind_a_relay_boots_by_dhcp_script_and_login() {
    let mut host = Host::new("relay");
    let wanted = instance(1, &host.volume("1.raw"));
    let mut state = desired(1, vec![wanted.clone()]);
    state.network.relays = vec![RELAY.parse().unwrap()];
    host.control_plane.want(state);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (router, node) = router(&mut host);
    let _relay = Relay::start(&router);
    std::thread::sleep(std::time::Duration::from_secs(1));

    let (address, url) = dhcp(&host, &node, &["-x", "0x4d:69505845"]);
    assert_eq!(address, "10.20.0.71", "the address of its NIC");
    address_take(&node, &address);
    let copy = host.state.path().join("loader");
    let tftp = ["busybox", "tftp", "-g", "-r", "undionly.kpxe", "-l", copy.to_str().unwrap(), "10.20.0.2"];
    run("ip", &[&["netns", "exec", &node][..], &tftp].concat());
    until("the loader is in the node's timeline", || {
        let loader = |event: &AgentEvent| match &event.from {
            EventSource::Netboot { said: NetbootEvent::Loader { mac, .. } } => *mac == Some(mac_of_node()),
            _ => false,
        };
        host.control_plane.events().iter().any(loader).then_some(())
    });
    let script = script(&node, &url);
    assert!(login(&node, &script));

    // A neighbour under its own MAC, which is no router's: what the operator is told is weaker is the address alone.
    let stranger = host.node(3, mac(3));
    address_take(&stranger, "10.20.0.200");
    assert!(!connects(&stranger, "10.20.0.9", 3260), "another address");
    assert!(!fetch(&stranger, &url).contains("password"), "the token, from another address");
}

#[test]
fn a_relay_that_the_network_does_not_name_is_not_answered() {
    let mut host = Host::new("norelay");
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (router, node) = router(&mut host);
    let _relay = Relay::start(&router);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let asked = dhcp_try(&host, &node, &["-x", "0x4d:69505845", "-t", "2", "-T", "1"]);
    assert!(asked.is_err(), "{asked:?}");
    let ping = ["netns", "exec", &router, "busybox", "ping", "-c", "1", "-W", "1", "10.20.0.2"];
    assert!(!output("ip", &ping).status.success(), "the router itself reaches nothing");
}
