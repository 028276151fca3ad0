//! Who pretends to be another node: by its MAC or its address from another port of the bridge, by its token, or by an
//! earlier secret. And ports that nobody has found yet.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::event::{BridgeEvent, EventSource};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::{BootNumber, BootUser, DhcpMode, MacAddr, boot_secret};
use support::{
    Host, address_take, connects, desired, dhcp, dhcp_try, fetch, instance, login, mac, pings, reaches, run,
    script, until,
};

/// A client that says it is iPXE.
const IPXE: &[&str] = &["-x", "0x4d:69505845"];
/// One that gives up soon.
const IMPATIENT: &[&str] = &["-x", "0x4d:69505845", "-t", "2", "-T", "1"];

/// A host with one instance, whose target listens.
fn host(name: &str, dhcp: DhcpMode) -> (Host, DesiredInstance) {
    let host = Host::new(name);
    let mut wanted = instance(1, &host.volume("1.raw"));
    let mut state = desired(1, Vec::new());
    state.network.dhcp = dhcp;
    if dhcp != DhcpMode::Authoritative {
        wanted.node_address = None;
    }
    state.instances.push(wanted.clone());
    host.control_plane.want(state);
    (host, wanted)
}

fn mac_set(node: &str, mac: MacAddr) {
    run("ip", &["-n", node, "link", "set", "eth0", "address", &mac.to_string()]);
}

/// Places in which a MAC was seen, as the events say.
fn conflicts(host: &Host) -> Vec<(MacAddr, String, String)> {
    let events = host.control_plane.events().into_iter();
    let conflict = |from| match from {
        EventSource::Bridge { said: BridgeEvent::MacConflict { mac, place, second } } => {
            Some((mac, place, second))
        }
        _ => None,
    };
    events.filter_map(|event| conflict(event.from)).collect()
}

#[test]
fn s5_a_mac_spoofed_from_another_port_gets_nothing_and_is_told_of() {
    let (mut host, wanted) = host("mac", DhcpMode::Authoritative);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, spoofer) = (host.node(1, mac(1)), host.node(2, mac(2)));
    let (address, url) = dhcp(&host, &node, IPXE);
    address_take(&node, &address);
    assert!(reaches(&node, "10.20.0.9", 3260), "the node itself");
    assert!(conflicts(&host).is_empty());

    // The node is silent from here on: nothing of its own takes its MAC back.
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "off"]);
    mac_set(&spoofer, mac(1));
    assert!(dhcp_try(&host, &spoofer, IMPATIENT).is_err(), "no lease, and so no token");
    address_take(&spoofer, &address);
    assert_eq!(fetch(&spoofer, &url), "", "no script");
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "no LUN");
    let told = until("the conflict is told", || Some(conflicts(&host)).filter(|told| !told.is_empty()));
    assert_eq!(told, [(mac(1), "node1".to_owned(), "node2".to_owned())]);

    // It goes on, and is told of once; a change of the network does not forget where the node is.
    let other = instance(2, &host.volume("2.raw"));
    let mut state = desired(2, vec![wanted.clone(), other.clone()]);
    state.generation = 2;
    host.control_plane.want(state);
    host.await_target(other.id, &ServiceStatus::Listening);
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "after a change");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(conflicts(&host).len(), 1, "told once");
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "on"]);
    assert!(reaches(&node, "10.20.0.9", 3260), "the node is not disturbed");

    // When its port is gone, the node may come back at another.
    run("ip", &["-n", &host.namespace, "link", "set", "node1", "nomaster"]);
    until("the node is found at its new port", || connects(&spoofer, "10.20.0.9", 3260).then_some(()));
}

#[test]
fn s5_an_address_spoofed_from_another_port_gets_nothing() {
    let (mut host, wanted) = host("ip", DhcpMode::Authoritative);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, spoofer) = (host.node(1, mac(1)), host.node(2, mac(2)));
    let (address, url) = dhcp(&host, &node, IPXE);
    address_take(&spoofer, &address);
    assert_eq!(fetch(&spoofer, &url), "", "no script under the node's address");
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "no LUN");
    address_take(&node, &address);
    assert!(fetch(&node, &url).contains("set password "), "the node gets its script all the same");
}

#[test]
fn s5_without_our_dhcp_a_spoofer_gets_nothing_either() {
    let (mut host, wanted) = host("off", DhcpMode::Off);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, spoofer) = (host.node(1, mac(1)), host.node(2, mac(2)));
    let url = "http://10.20.0.2/boot";
    address_take(&node, "10.20.0.80");
    // Any address of the node range.
    let script = script(&node, url);
    assert!(login(&node, &script), "and the target answers there");

    address_take(&spoofer, "10.20.0.81");
    let told = fetch(&spoofer, &format!("{url}?mac={}", mac(1)));
    assert!(told.contains("no instance for this node"), "what it says of itself is not read: {told}");
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "its own MAC opens nothing");
    address_take(&spoofer, "10.20.0.80");
    assert!(!fetch(&spoofer, url).contains("password"), "the node's address");
    mac_set(&spoofer, mac(1));
    for address in ["10.20.0.80", "10.20.0.82"] {
        address_take(&spoofer, address);
        assert_eq!(fetch(&spoofer, url), "", "the node's MAC");
        assert!(!connects(&spoofer, "10.20.0.9", 3260), "the node's MAC");
    }
    until("the conflict is told", || (!conflicts(&host).is_empty()).then_some(()));
    address_take(&node, "10.20.0.200");
    assert!(!connects(&node, "10.20.0.9", 3260), "the node itself outside the node range");
}

#[test]
fn s5_a_token_or_secret_is_good_for_one_boot_of_one_node() {
    let (mut host, wanted) = host("token", DhcpMode::Authoritative);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (node, thief) = (host.node(1, mac(1)), host.node(2, mac(2)));
    let (address, url) = dhcp(&host, &node, IPXE);
    let (stranger, _) = dhcp(&host, &thief, IPXE);
    address_take(&node, &address);
    address_take(&thief, &stranger);
    let stolen = fetch(&thief, &url);
    assert!(stolen.contains("token is spent") && !stolen.contains("password"), "another client: {stolen}");
    let script = script(&node, &url);
    assert_eq!(fetch(&node, &url), script, "a repeat before the login");
    assert!(login(&node, &script));
    until("the token is refused after the login", || {
        fetch(&node, &url).contains("token is spent").then_some(())
    });

    // The next boot ends the secret of this one, whoever has it.
    let (_, url) = dhcp(&host, &node, IPXE);
    let next = fetch(&node, &url);
    assert_ne!(next, script);
    assert!(login(&node, &script), "nobody has logged in with a newer one");
    assert!(login(&node, &next));
    assert!(!login(&node, &script), "an older boot's secret");
    let user = script.lines().find_map(|line| line.strip_prefix("set username ")).unwrap();
    let older = user.parse::<BootUser>().unwrap();
    let invented = BootUser { boot: BootNumber(older.boot.0 - 1), ..older };
    let secret = boot_secret(&wanted.boot_key, invented);
    let invented = next.replace(user, &invented.to_string());
    let password = next.lines().find_map(|line| line.strip_prefix("set password ")).unwrap();
    assert!(!login(&node, &invented.replace(password, secret.expose())), "a still older one");
}

#[test]
fn a_port_that_nobody_has_found_reaches_nobody() {
    let (mut host, wanted) = host("found", DhcpMode::Authoritative);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let node = host.node(1, mac(1));
    address_take(&node, "10.20.0.71");
    assert!(reaches(&node, "10.20.0.9", 3260));
    // Without an agent nobody finds ports: what holds for a second lasts.
    host.agent_kill();
    let late = host.node_unchecked(2, mac(2));
    address_take(&late, "10.20.0.200");
    assert!(!pings(&late, "10.20.0.71"), "another node");
    assert!(!connects(&late, "10.20.0.2", 80), "the boot services");
    mac_set(&late, mac(1));
    address_take(&late, "10.20.0.71");
    assert!(!connects(&late, "10.20.0.9", 3260), "a target");
    assert!(reaches(&node, "10.20.0.9", 3260), "who was found before is served on");
    host.agent_start();
    address_take(&late, "10.20.0.200");
    mac_set(&late, mac(2));
    until("it is found", || connects(&late, "10.20.0.2", 80).then_some(()));
    assert!(!pings(&late, "10.20.0.71"), "a node is never reached");
}

#[test]
fn b1_a_node_boots_from_any_of_its_nics_and_its_address_follows() {
    let mut host = Host::new("nics");
    let mut wanted = instance(1, &host.volume("1.raw"));
    wanted.macs.push(mac(2));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let nics = [host.node(1, mac(1)), host.node(2, mac(2))];
    for (boots, spare) in [(1, 0), (0, 1), (1, 0)] {
        let (boots, spare) = (&nics[boots], &nics[spare]);
        run("ip", &["-n", spare, "addr", "flush", "dev", "eth0"]);
        let (address, url) = dhcp(&host, boots, IPXE);
        assert_eq!(address, "10.20.0.71", "any NIC");
        address_take(boots, &address);
        let script = fetch(boots, &url);
        assert!(script.contains("set password ") && login(boots, &script), "{script}");
        assert!(dhcp_try(&host, spare, &["-t", "2", "-T", "1"]).is_err(), "the address is at the other NIC");
        let renewed = dhcp(&host, boots, &[]);
        assert_eq!(renewed.0, "10.20.0.71", "the operating system on the NIC that booted");
    }
    assert!(conflicts(&host).is_empty(), "two NICs are no conflict");
}
