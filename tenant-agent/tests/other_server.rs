//! Beside another DHCP server behind the uplink: what may pass between it and nodes, and who else may be one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::process::{Child, Command, Stdio};

use bmi_agent_api::status::ServiceStatus;
use bmi_types::DhcpMode;
use support::{Host, address_take, desired, dhcp, dhcp_try, instance, mac, output, pings, run, until};

/// A DHCP server in a namespace, on its `eth0`.
struct Server(Child);

impl Server {
    fn start(namespace: &str, gives: &str) -> Self {
        let mut server = Command::new("ip");
        server.args([
            "netns",
            "exec",
            namespace,
            "dnsmasq",
            "--no-daemon",
            "--user=root",
            "--conf-file=/dev/null",
        ]);
        server.args([
            "--port=0",
            "--pid-file=",
            "--leasefile-ro",
            "--interface=eth0",
            "--bind-interfaces",
            "--no-ping",
        ]);
        server.arg(format!("--dhcp-range={gives},255.255.255.0,1h"));
        Self(server.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether somebody answers ARP for an address.
fn arps(namespace: &str, address: &str) -> bool {
    let arping =
        ["netns", "exec", namespace, "busybox", "arping", "-I", "eth0", "-c", "2", "-w", "2", address];
    output("ip", &arping).status.success()
}

#[test]
fn b6_only_the_server_behind_the_uplink_is_heard_and_nobody_takes_our_addresses() {
    let mut host = Host::new("beside");
    host.uplink("up0");
    let mut wanted = instance(1, &host.volume("1.raw"));
    wanted.node_address = None;
    let mut state = desired(1, vec![wanted.clone()]);
    state.network.dhcp = DhcpMode::Proxy;
    host.control_plane.want(state);
    let outside = host.namespace_add("outside");
    let link = ["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &outside];
    run("ip", &[&["-n", &host.namespace][..], &link].concat());
    run("ip", &["-n", &outside, "link", "set", "eth0", "up"]);
    address_take(&outside, "10.20.0.3");
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, rogue) = (host.node(1, mac(1)), host.node(2, mac(2)));
    address_take(&rogue, "10.20.0.130");
    let _rogue = Server::start(&rogue, "10.20.0.140,10.20.0.150");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(dhcp_try(&host, &node, &["-t", "3", "-T", "1"]).is_err(), "a node is no DHCP server");
    let _server = Server::start(&outside, "10.20.0.100,10.20.0.110");
    until("the server behind the uplink answers", || dhcp_try(&host, &node, &["-t", "2", "-T", "1"]).ok());
    for _ in 0..3 {
        let (address, _) = dhcp(&host, &node, &[]);
        assert!(
            address.starts_with("10.20.0.10"),
            "the server behind the uplink, not the neighbour: {address}"
        );
    }
    let (address, _) = dhcp(&host, &node, &[]);
    address_take(&node, &address);
    assert!(arps(&node, "10.20.0.3"), "a renewal needs ARP");
    assert!(!pings(&node, "10.20.0.3"), "and nothing else");
    assert!(!pings(&outside, &address), "from outside neither");

    // Who says that one of our addresses is his is not heard by anybody.
    assert!(arps(&rogue, "10.20.0.3"), "under its own address");
    for ours in ["10.20.0.9", "10.20.0.2"] {
        address_take(&rogue, ours);
        assert!(!arps(&rogue, "10.20.0.3"), "in the name of {ours}");
        assert!(!arps(&outside, ours), "a node answers for {ours}");
    }
}
