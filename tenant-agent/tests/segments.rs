//! Segments: a VXLAN between two hosts and who pretends to be whom over it, a VLAN, bridges and cards that were there
//! before, and networks that cannot be made on this host.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::event::{About, BridgeEvent, EventSource};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::{MacAddr, Segment};
use support::{
    Host, address_take, connects, desired, dhcp, dhcp_try, fetch, instance, login, mac, output, reaches, run,
    until,
};

const VNI: u32 = 77;
const IPXE: &[&str] = &["-x", "0x4d:69505845"];
const IMPATIENT: &[&str] = &["-x", "0x4d:69505845", "-t", "2", "-T", "1"];

/// A host with a segment and one instance, whose agent is not started.
fn host(name: &str, segment: Segment, more: &str) -> (Host, DesiredInstance) {
    let mut host = Host::new(name);
    host.configure(more);
    let wanted = instance(1, &host.volume("1.raw"));
    want(&host, 1, segment, vec![wanted.clone()]);
    (host, wanted)
}

fn want(host: &Host, generation: u64, segment: Segment, instances: Vec<DesiredInstance>) {
    let mut state = desired(generation, instances);
    state.network.segment = segment;
    host.control_plane.want(state);
}

/// A host whose VXLAN goes over a network of its own, 192.0.2.0/24, with two peers.
fn vxlan_host(name: &str) -> (Host, DesiredInstance) {
    let more =
        "[vxlan]\nlocal = \"192.0.2.1\"\ndevice = \"under0\"\npeers = [\"192.0.2.2\", \"192.0.2.3\"]\n";
    let (host, wanted) = host(name, Segment::Vxlan(VNI), more);
    underlay(&host);
    (host, wanted)
}

fn underlay(host: &Host) {
    host.ip(&["link", "add", "under0", "type", "bridge", "mcast_snooping", "0"]);
    host.ip(&["addr", "add", "192.0.2.1/24", "dev", "under0"]);
    host.ip(&["link", "set", "under0", "up"]);
}

/// Another host: its `eth0` is its end of the VXLAN.
fn peer(host: &mut Host, number: u8, mac: MacAddr) -> String {
    peer_to(host, number, mac, &["remote", "192.0.2.1"])
}

/// The same, which sends to others than this host.
fn peer_to(host: &mut Host, number: u8, mac: MacAddr, to: &[&str]) -> String {
    let peer = host.namespace_add(&format!("p{number}"));
    let (port, address) = (format!("under{number}"), format!("192.0.2.{number}"));
    host.ip(&["link", "add", &port, "type", "veth", "peer", "name", "under", "netns", &peer]);
    host.ip(&["link", "set", &port, "master", "under0", "up"]);
    run("ip", &["-n", &peer, "addr", "add", &format!("{address}/24"), "dev", "under"]);
    run("ip", &["-n", &peer, "link", "set", "under", "up"]);
    let vni = VNI.to_string();
    let vxlan = ["link", "add", "eth0", "mtu", "1450", "type", "vxlan", "id", &vni, "dstport", "4789"];
    run("ip", &[&["-n", &peer][..], &vxlan, &["local", &address], to].concat());
    run("ip", &["-n", &peer, "link", "set", "eth0", "address", &mac.to_string(), "up"]);
    peer
}

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

/// The segment's device: the one in the bridge that is neither ours nor a node's.
fn segment_device(host: &Host) -> Option<String> {
    host.links().into_iter().find(|link| link.starts_with("bs"))
}

/// Where the host sends what is for a MAC: the peers.
fn goals(host: &Host, device: &str, mac: &str) -> Vec<String> {
    let fdb = run("ip", &["netns", "exec", &host.namespace, "bridge", "fdb", "show", "dev", device]);
    let entries = fdb.lines().filter(|line| line.starts_with(mac) && line.contains(" dst "));
    entries.map(|line| line.split(" dst ").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

/// Counts packets of a namespace's VXLAN that come from the host.
fn heard(peer: &str) -> u64 {
    let shown = run("ip", &["-n", peer, "-s", "-j", "link", "show", "dev", "eth0"]);
    let links: serde_json::Value = serde_json::from_str(&shown).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn s5_over_a_vxlan_a_node_boots_and_a_peer_that_pretends_to_be_it_gets_nothing() {
    let (mut host, wanted) = vxlan_host("vxlan");
    let (node, spoofer) = (peer(&mut host, 2, mac(1)), peer(&mut host, 3, mac(2)));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let device = segment_device(&host).expect("a device");
    let link = host.link(&device).unwrap();
    let info = &link["linkinfo"]["info_data"];
    assert_eq!((&info["id"], &info["port"], &info["learning"]), (&VNI.into(), &4789.into(), &false.into()));
    assert_eq!(link["mtu"], 1450);
    let inside = ["-n", "x", "-j", "link", "show", "dev", "eth0"];
    let pid = host.pid(&wanted.id.to_string()).to_string();
    let inside = run("nsenter", &[&["-t", &pid, "-n", "ip"][..], &inside[2..]].concat());
    assert!(inside.contains("\"mtu\":1450"), "what is larger would be lost: {inside}");
    assert_eq!(goals(&host, &device, "00:00:00:00:00:00"), ["192.0.2.2", "192.0.2.3"]);

    // The boot entry comes after the target: a node that asks before is told to ask again.
    let (address, url, script) = until("the script is there", || {
        let (address, url) = dhcp(&host, &node, IPXE);
        address_take(&node, &address);
        let script = fetch(&node, &url);
        script.contains("set password ").then_some((address, url, script))
    });
    assert!(login(&node, &script), "the node's disk");
    assert!(conflicts(&host).is_empty());

    // From then on nobody else hears what is for the node.
    until("the node's peer is entered", || {
        (goals(&host, &device, &mac(1).to_string()) == ["192.0.2.2"]).then_some(())
    });
    let before = heard(&spoofer);
    for _ in 0..5 {
        assert!(reaches(&node, "10.20.0.9", 3260));
    }
    assert_eq!(heard(&spoofer), before, "another peer hears the node's frames");

    // The node is silent; the other peer takes its MAC, and then its address.
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "off"]);
    run("ip", &["-n", &spoofer, "link", "set", "eth0", "address", &mac(1).to_string()]);
    assert!(dhcp_try(&host, &spoofer, IMPATIENT).is_err(), "no lease, and so no token");
    address_take(&spoofer, &address);
    assert_eq!(fetch(&spoofer, &url), "", "no script");
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "no LUN");
    let told = until("the conflict is told", || Some(conflicts(&host)).filter(|told| !told.is_empty()));
    let place = |peer: &str| format!("{device} (peer {peer})");
    assert_eq!(told, [(mac(1), place("192.0.2.2"), place("192.0.2.3"))]);
    assert_eq!(goals(&host, &device, &mac(1).to_string()), ["192.0.2.2"], "it did not move");
    run("ip", &["-n", &spoofer, "link", "set", "eth0", "address", &mac(2).to_string()]);
    assert_eq!(fetch(&spoofer, &url), "", "no script under the node's address");
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "no LUN under the node's address");
    // One of ours: a peer that has the target's MAC.
    let target =
        host.link(&target_port(&host, &wanted).unwrap()).unwrap()["address"].as_str().unwrap().to_owned();
    run("ip", &["-n", &spoofer, "link", "set", "eth0", "address", &target]);
    let _ = dhcp_try(&host, &spoofer, IMPATIENT);
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "on"]);
    assert!(reaches(&node, "10.20.0.9", 3260), "the node is not disturbed");

    // A host that is no peer says that it is the node.
    let stranger = peer(&mut host, 4, mac(1));
    address_take(&stranger, &address);
    assert!(dhcp_try(&host, &stranger, IMPATIENT).is_err() && !connects(&stranger, "10.20.0.9", 3260));
    let fence =
        run("ip", &["netns", "exec", &host.namespace, "nft", "list", "table", "ip", "bmi_bmi0_vxlan"]);
    let dropped = fence.lines().find(|line| line.contains("counter packets")).unwrap();
    assert!(!dropped.contains("packets 0 "), "{dropped}");

    // Somebody loads a firewall of the host's own. Ours is there again, and who was where is known as before; also where the
    // network could not be made anew, since the host has an address in it by now.
    host.ip(&["addr", "add", "10.20.0.200/24", "dev", "under0"]);
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "off"]);
    run("ip", &["netns", "exec", &host.namespace, "nft", "flush", "ruleset"]);
    host.await_restored("bmi_bmi0");
    host.await_restored("bmi_bmi0_vxlan");
    run("ip", &["-n", &spoofer, "link", "set", "eth0", "address", &mac(1).to_string()]);
    assert!(dhcp_try(&host, &spoofer, IMPATIENT).is_err() && !connects(&spoofer, "10.20.0.9", 3260));
    assert!(dhcp_try(&host, &stranger, IMPATIENT).is_err() && !connects(&stranger, "10.20.0.9", 3260));
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "on"]);
    assert!(reaches(&node, "10.20.0.9", 3260), "the node is served as before");
}

/// The bridge's end of a target's veth pair.
fn target_port(host: &Host, wanted: &DesiredInstance) -> Option<String> {
    let alias = format!("bmi:{}", wanted.id);
    let links: serde_json::Value = serde_json::from_str(&host.ip(&["-d", "-j", "link"])).unwrap();
    let found = links.as_array().unwrap().iter().find(|link| link["ifalias"] == alias.as_str());
    Some(found?["ifname"].as_str().unwrap().to_owned())
}

#[test]
fn s5_with_a_multicast_group_a_mac_has_one_peer_as_well() {
    let more = "[vxlan]\nlocal = \"192.0.2.1\"\ndevice = \"under0\"\ngroup = \"239.8.0.1\"\n";
    let (mut host, wanted) = host("group", Segment::Vxlan(VNI), more);
    underlay(&host);
    let group = ["group", "239.8.0.1", "dev", "under"];
    let (node, spoofer) = (peer_to(&mut host, 2, mac(1), &group), peer_to(&mut host, 3, mac(2), &group));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let (address, _) = dhcp(&host, &node, IPXE);
    address_take(&node, &address);
    assert!(reaches(&node, "10.20.0.9", 3260));
    run("ip", &["-n", &node, "link", "set", "eth0", "arp", "off"]);
    run("ip", &["-n", &spoofer, "link", "set", "eth0", "address", &mac(1).to_string()]);
    address_take(&spoofer, &address);
    assert!(!connects(&spoofer, "10.20.0.9", 3260), "no LUN");
    let told = until("the conflict is told", || Some(conflicts(&host)).filter(|told| !told.is_empty()));
    assert!(told[0].1.ends_with("(peer 192.0.2.2)") && told[0].2.ends_with("(peer 192.0.2.3)"), "{told:?}");
}

#[test]
fn a_vxlan_is_found_again_is_made_again_and_goes_with_the_agent() {
    let (mut host, wanted) = vxlan_host("found");
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let device = segment_device(&host).unwrap();
    let index = |host: &Host, name: &str| host.link(name).map(|link| link["ifindex"].as_u64().unwrap());
    let first = index(&host, &device);

    // An agent that starts again finds it.
    host.agent_kill();
    host.control_plane.go_away(true);
    host.control_plane.go_away(false);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    assert_eq!(index(&host, &device), first);

    // One that vanishes is made again, and so is the bridge; the target is served again.
    for (gone, kind) in [(device.as_str(), "vxlan"), ("bmi0", "bridge")] {
        let before = index(&host, gone);
        host.ip(&["link", "del", gone]);
        until(&format!("{gone} is made again"), || {
            let again = host.link(gone).filter(|link| link["linkinfo"]["info_kind"] == kind)?;
            (again["ifindex"].as_u64() != before).then_some(())
        });
        until("the VXLAN is in the bridge", || (host.link(&device)?["master"] == "bmi0").then_some(()));
        until("the target is in the bridge", || {
            (host.link(&target_port(&host, &wanted)?)?["master"] == "bmi0").then_some(())
        });
        host.await_target(wanted.id, &ServiceStatus::Listening);
        host.await_fault(About::Network, "are gone from the host");
        host.await_mended(About::Network);
    }

    // Another number is another device.
    want(&host, 2, Segment::Vxlan(78), vec![wanted.clone()]);
    until("the other VXLAN is there", || {
        (host.link(&device)?["linkinfo"]["info_data"]["id"] == 78).then_some(())
    });
    host.agent_end();
    host.agent_stop();
    assert_eq!((host.link(&device), host.link("bmi0")), (None, None));
    let tables = run("ip", &["netns", "exec", &host.namespace, "nft", "list", "tables"]);
    assert_eq!(tables, "", "rules are left");
    assert!(host.link("under0").is_some(), "what is the host's own stays");
}

/// Whether this kernel can make VLANs.
fn kernel_has_vlans(host: &Host) -> bool {
    host.ip(&["link", "add", "tried0", "type", "bridge"]);
    let made = ["link", "add", "link", "tried0", "name", "tried0.5", "type", "vlan", "id", "5"];
    let made = output("ip", &[&["-n", &host.namespace][..], &made].concat()).status.success();
    host.ip(&["link", "del", "tried0"]);
    made
}

#[test]
fn a_vlan_is_made_on_its_card_or_it_is_said_that_this_kernel_has_none() {
    let (mut host, wanted) = host("vlan", Segment::Vlan(33), "[vlan]\ndevice = \"card0\"\n");
    let far = host.namespace_add("far");
    host.ip(&["link", "add", "card0", "type", "veth", "peer", "name", "card", "netns", &far]);
    host.ip(&["link", "set", "card0", "up"]);
    run("ip", &["-n", &far, "link", "set", "card", "up"]);
    let has = kernel_has_vlans(&host);
    host.agent_start();
    if has {
        host.await_target(wanted.id, &ServiceStatus::Listening);
        let vlan = ["link", "add", "link", "card", "name", "eth0", "type", "vlan", "id", "33"];
        run("ip", &[&["-n", &far][..], &vlan].concat());
        run("ip", &["-n", &far, "link", "set", "eth0", "address", &mac(1).to_string(), "up"]);
        let (address, _) = dhcp(&host, &far, IPXE);
        address_take(&far, &address);
        assert!(reaches(&far, "10.20.0.9", 3260));
        return;
    }
    let told = host.await_netboot(|status| matches!(status, ServiceStatus::Failed { .. }));
    let ServiceStatus::Failed { reason } = told else { panic!() };
    assert!(reason.contains("no 802.1Q VLANs (module 8021q)"), "{reason}");
    assert_eq!(segment_device(&host), None);
    assert!(!host.directory(&wanted.id.to_string()).exists(), "nothing is started");
    // The same network without a segment comes about.
    want(&host, 2, Segment::None, vec![wanted.clone()]);
    host.await_target(wanted.id, &ServiceStatus::Listening);
    bmi_tests::skip("vlan-traffic", "this kernel has no 802.1Q VLANs; only that this is told was tested");
}

#[test]
fn a_segment_that_nothing_says_how_to_make_is_told_and_nothing_is_made() {
    let (mut host, wanted) = host("unsaid", Segment::Vxlan(VNI), "");
    host.agent_start();
    let told = host.await_netboot(|status| matches!(status, ServiceStatus::Failed { .. }));
    let ServiceStatus::Failed { reason } = told else { panic!() };
    assert!(reason.contains("no [vxlan] section"), "{reason}");
    assert_eq!(host.link("bmi0"), None);
    assert!(!host.directory(&wanted.id.to_string()).exists());
}

/// Which segment a network has comes by the agent's unprivileged half; root makes the one that its file allows.
#[test]
fn s5_a_segment_that_the_hosts_own_file_does_not_allow_is_not_made() {
    let more = format!(
        "segment = {{ kind = \"vxlan\", id = {VNI} }}\n[vxlan]\nlocal = \"192.0.2.1\"\npeers = [\"192.0.2.2\"]\n"
    );
    let (mut host, wanted) = host("allowed", Segment::Vxlan(VNI + 1), &more);
    host.agent_start();
    for (generation, other) in [(1, Segment::Vxlan(VNI + 1)), (2, Segment::Vlan(33)), (3, Segment::None)] {
        want(&host, generation, other, vec![wanted.clone()]);
        let reason =
            format!("segment is {other}, and `segment` in the agent's configuration allows VXLAN {VNI}");
        host.await_netboot(
            |it| matches!(it, ServiceStatus::Failed { reason: told } if told.contains(&reason)),
        );
        assert_eq!((host.link("bmi0"), segment_device(&host)), (None, None), "{other}");
        assert!(!host.directory(&wanted.id.to_string()).exists(), "nothing is started");
    }
    underlay(&host);
    want(&host, 4, Segment::Vxlan(VNI), vec![wanted.clone()]);
    host.await_target(wanted.id, &ServiceStatus::Listening);
    assert!(segment_device(&host).is_some());
    // What was made stays, and is not changed into another one.
    want(&host, 5, Segment::Vxlan(VNI + 1), vec![wanted]);
    let other = format!("segment is VXLAN {}", VNI + 1);
    host.await_netboot(|it| matches!(it, ServiceStatus::Failed { reason } if reason.contains(&other)));
    let device = segment_device(&host).unwrap();
    let id = &host.link(&device).unwrap()["linkinfo"]["info_data"]["id"];
    assert_eq!(id.as_u64(), Some(u64::from(VNI)));

    // What was made before the file said so goes when the agent starts with it, whoever asks for nothing else.
    host.agent_end();
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), text.replace(&format!("id = {VNI}"), "id = 5")).unwrap();
    host.agent_start();
    until("it is gone", || host.link(&device).is_none().then_some(()));
}

#[test]
fn a_network_that_overlaps_the_hosts_own_is_refused_until_it_does_not() {
    let (mut host, wanted) = host("overlap", Segment::None, "");
    host.ip(&["link", "add", "own0", "type", "bridge"]);
    host.ip(&["addr", "add", "10.20.0.200/32", "dev", "own0"]);
    host.agent_start();
    let refused = |host: &Host, by: &str| {
        let told = host.await_netboot(
            |status| matches!(status, ServiceStatus::Failed { reason } if reason.contains(by)),
        );
        let ServiceStatus::Failed { reason } = told else { panic!() };
        assert!(reason.contains("10.20.0.0/24 overlaps"), "{reason}");
        assert_eq!(host.link("bmi0"), None, "nothing is made");
        assert!(!host.directory(&wanted.id.to_string()).exists(), "nothing is started");
    };
    refused(&host, "own address 10.20.0.200");
    host.ip(&["addr", "flush", "dev", "own0"]);
    host.ip(&["link", "set", "own0", "up"]);
    host.ip(&["route", "add", "10.16.0.0/12", "dev", "own0"]);
    // Whatever the agent saw in between: the route is there from now on, or was before it looked.
    if host.link("bmi0").is_none() {
        refused(&host, "route to 10.16.0.0/12");
    }
    host.ip(&["route", "del", "10.16.0.0/12", "dev", "own0"]);
    host.ip(&["route", "add", "default", "dev", "own0"]);
    host.await_target(wanted.id, &ServiceStatus::Listening);
    host.await_fault(About::Network, "10.20.0.0/24 overlaps");
    host.await_mended(About::Network);
}

#[test]
fn a_bridge_that_was_there_before_is_used_and_stays() {
    let (mut host, wanted) = host("before", Segment::None, "");
    host.ip(&["link", "add", "bmi0", "type", "bridge"]);
    host.ip(&["link", "set", "bmi0", "up"]);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let node = host.node(1, mac(1));
    let (address, _) = dhcp(&host, &node, IPXE);
    address_take(&node, &address);
    assert!(reaches(&node, "10.20.0.9", 3260));
    host.agent_end();
    host.agent_stop();
    assert!(host.link("bmi0").is_some(), "it is the operator's");
}

#[test]
fn a_card_that_the_host_needs_for_itself_is_not_made_a_port() {
    let (mut host, wanted) = host("needed", Segment::None, "");
    host.uplink("up0");
    host.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "cable0"]);
    host.ip(&["addr", "add", "192.0.2.7/24", "dev", "up0"]);
    host.ip(&["link", "set", "up0", "up"]);
    host.ip(&["link", "set", "cable0", "up"]);
    host.agent_start();
    let refused = |host: &Host, used: &str| {
        host.await_netboot(|it| matches!(it, ServiceStatus::Failed { reason } if reason.contains(used)));
        assert_eq!(host.link("bmi0"), None, "nothing is made");
        let config = host.config();
        let check = ["netns", "exec", &host.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "check", "--config"];
        let checked = output("ip", &[&check[..], &[config.to_str().unwrap()]].concat());
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(!checked.status.success() && said.contains(&format!("uplink: {used}")), "{said}");
    };
    refused(&host, "up0 is the host's own, with the address 192.0.2.7");
    host.ip(&["link", "add", "other0", "type", "bridge"]);
    host.ip(&["link", "set", "up0", "master", "other0"]);
    host.ip(&["addr", "flush", "dev", "up0"]);
    refused(&host, "up0 is part of other0");
    // Its link-local address of IPv6 came by itself.
    host.ip(&["link", "set", "up0", "nomaster"]);
    host.await_target(wanted.id, &ServiceStatus::Listening);
    until("the uplink is in the bridge", || (host.link("up0")?["master"] == "bmi0").then_some(()));
    host.await_mended(About::Network);
}

#[test]
fn a_card_of_the_hosts_own_that_is_named_as_a_nodes_port_stays_up() {
    let (mut host, wanted) = host("named", Segment::None, "node_ports = [\"own0\"]\n");
    host.ip(&["link", "add", "own0", "type", "veth", "peer", "name", "cable0"]);
    host.ip(&["link", "set", "cable0", "up"]);
    host.ip(&["addr", "add", "192.0.2.7/24", "dev", "own0"]);
    host.ip(&["link", "set", "own0", "up"]);
    let is_up = |host: &Host| host.link("own0").unwrap()["flags"].to_string().contains("\"UP\"");
    host.agent_start();
    let used = "own0 is the host's own, with the address 192.0.2.7";
    host.await_netboot(|it| matches!(it, ServiceStatus::Failed { reason } if reason.contains(used)));
    assert!(is_up(&host) && host.link("bmi0").is_none());
    host.agent_end();
    host.agent_stop();
    assert!(is_up(&host), "whoever is logged in by it still is");
    // Without an address it is a port, in quarantine.
    host.ip(&["addr", "flush", "dev", "own0"]);
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    until("it is in quarantine", || (!is_up(&host)).then_some(()));
}
