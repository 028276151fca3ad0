//! What every driver that runs targets must do: the same tests for each.

use std::os::unix::fs::MetadataExt;

use bmi_agent_api::event::{EventSource, NetbootEvent, TargetEvent};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::Timestamp;

use super::{
    Host, UID_BASE, connects, desired, dhcp, instance, mac, output, proc_status, reaches, run, until,
};

fn node_address(node: &str, number: u8) {
    run("ip", &["-n", node, "addr", "flush", "dev", "eth0"]);
    run("ip", &["-n", node, "addr", "add", &format!("10.20.0.{}/24", 70 + number), "dev", "eth0"]);
}

/// Two instances: confined, reached by their own node only, and nothing left afterwards. `look` is given each process and its
/// program.
pub fn life(mut host: Host, look: fn(&Host, &str, &str)) {
    let volumes = [host.volume("1.raw"), host.volume("2.raw")];
    let instances = vec![instance(1, &volumes[0]), instance(2, &volumes[1])];
    host.control_plane.want(desired(1, instances.clone()));
    host.agent_start();
    for instance in &instances {
        host.await_target(instance.id, &ServiceStatus::Listening);
    }
    host.await_netboot(|status| *status == ServiceStatus::Listening);

    // The processes have no rights and see nobody.
    let first = instances[0].id.to_string();
    let mut uids = Vec::new();
    for (name, program) in
        [(&*first, "bmi-target"), (&*instances[1].id.to_string(), "bmi-target"), ("netboot", "bmi-netboot")]
    {
        let pid = host.pid(name);
        look(&host, name, program);
        let uid: u32 = proc_status(pid, "Uid").split(' ').next().unwrap().parse().unwrap();
        assert!((UID_BASE + 1..UID_BASE + 100).contains(&uid));
        uids.push(uid);
        let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let host_ns = std::fs::metadata(format!("/run/netns/{}", host.namespace)).unwrap().ino();
        assert!(!own.to_str().unwrap().contains(&host_ns.to_string()));
        let inside = ["-t", &pid.to_string(), "-n", "nft", "-j", "list", "ruleset"];
        assert!(run("nsenter", &inside).contains("\"policy\": \"drop\""), "the allow-list is there");
        let routes = run("nsenter", &["-t", &pid.to_string(), "-n", "ip", "route"]);
        assert_eq!(routes.lines().count(), 1, "no way out of the network: {routes}");
    }
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 3, "a user id each");
    assert_eq!(std::fs::metadata(&volumes[0]).unwrap().mode() & 0o777, 0o600);

    // The node reaches its own target, and nothing else does.
    let one = host.node(1, mac(1));
    let two = host.node(2, mac(2));
    node_address(&one, 1);
    node_address(&two, 2);
    assert!(reaches(&one, "10.20.0.9", 3260), "a node reaches its target");
    assert!(reaches(&two, "10.20.0.10", 3260), "so does the other");
    assert!(!connects(&one, "10.20.0.10", 3260), "not the neighbour's");
    assert!(!connects(&two, "10.20.0.9", 3260), "nor the other way round");
    assert!(!connects(&one, "10.20.0.9", 80), "not another port");
    // The kernel of a node answers this, whatever listens there.
    let ping = ["busybox", "ping", "-qc", "1", "-W", "1", "10.20.0.72"];
    let sees = |first: &str| {
        // Without asking where the other is. A NIC that gets another MAC forgets this.
        for (node, address, number) in [(&one, "10.20.0.72", 2), (&two, "10.20.0.71", 1)] {
            let mac = mac(number).to_string();
            run("ip", &["-n", node, "neigh", "replace", address, "lladdr", &mac, "dev", "eth0"]);
        }
        let script = format!("{first} ip netns exec {one} {}", ping.join(" "));
        output("sh", &["-c", &script]).status.success()
    };
    assert!(!sees(""), "nodes do not see each other");
    run("ip", &["-n", &one, "addr", "flush", "dev", "eth0"]);
    run("ip", &["-n", &one, "addr", "add", "10.20.0.99/24", "dev", "eth0"]);
    assert!(!connects(&one, "10.20.0.9", 3260), "not from another address");
    node_address(&one, 1);
    run("ip", &["-n", &one, "link", "set", "eth0", "address", "52:54:00:00:00:99"]);
    assert!(!connects(&one, "10.20.0.9", 3260), "not from another MAC");
    run("ip", &["-n", &one, "link", "set", "eth0", "address", &mac(1).to_string()]);
    assert!(reaches(&one, "10.20.0.9", 3260), "its own again");

    // From inside the targets: no way to each other, to the boot services or to a node.
    let netboot = host.pid("netboot");
    for pid in [host.pid(&first), netboot] {
        let process = pid.to_string();
        let inside = ["-t", &process, "-n"];
        assert!(!output("nsenter", &[&inside[..], &ping].concat()).status.success(), "{pid} sees a node");
        for (address, port) in [("10.20.0.10", 3260), ("10.20.0.2", 80)] {
            let script = format!("exec 3<>/dev/tcp/{address}/{port}");
            let inside = ["-t", &pid.to_string(), "-n", "timeout", "1", "bash", "-c", &script];
            assert!(
                !output("nsenter", &inside).status.success() || (pid, address) == (netboot, "10.20.0.2"),
                "{pid} → {address}"
            );
        }
    }

    // The target's own rules hold alone, without the bridge's, and count what they drop.
    let pid = host.pid(&first);
    // At once, since the agent puts them in force again. That it is these rules that keep nodes apart: now they see each other.
    let delete = format!("ip netns exec {} nft delete table bridge bmi_bmi0 &&", host.namespace);
    assert!(sees(&delete), "a node would answer");
    let before = dropped(pid);
    assert!(reaches(&one, "10.20.0.9", 3260));
    assert_eq!(dropped(pid), before, "what is allowed is not counted as dropped");
    assert!(!connects(&one, "10.20.0.9", 80));
    assert!(!connects(&two, "10.20.0.9", 3260));
    assert!(dropped(pid) >= before + 2, "another port and another node");

    // Removal leaves nothing.
    host.control_plane.want(desired(2, vec![instances[1].clone()]));
    host.await_generation(2, 1);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "no process");
    assert!(!host.directory(&first).exists(), "no directory");
    let ports = host.links().iter().filter(|name| name.starts_with("bt") || name.starts_with("bp")).count();
    assert_eq!(ports, 2, "no interface: {:?}", host.links());
    assert!(!host.nft().to_string().contains("10.20.0.9\""), "no rule");
    let meta = std::fs::metadata(&volumes[0]).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0), "the volume is root's again");
    assert!(reaches(&two, "10.20.0.10", 3260), "the other is not disturbed");
}

/// Packets that the rules inside a process's namespace dropped on their way in.
fn dropped(pid: i32) -> u64 {
    let chain = ["-t", &pid.to_string(), "-n", "nft", "list", "chain", "inet", "bmi", "input"];
    let rules = run("nsenter", &chain);
    let count = rules.split("counter packets ").nth(1).unwrap().split(' ').next().unwrap();
    count.parse().unwrap()
}

/// They outlive the agent, are found again, and come back when they die, with no control plane.
pub fn again(mut host: Host) {
    let volume = host.volume("1.raw");
    let wanted = instance(1, &volume);
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let name = wanted.id.to_string();
    let before = [host.pid(&name), host.pid("netboot")];

    // A port that is found needs no agent any more; one that joins while there is none reaches nothing.
    let node = host.node(1, mac(1));
    node_address(&node, 1);
    host.agent_kill();
    host.control_plane.go_away(true);
    let late = host.node_unchecked(2, mac(2));
    node_address(&late, 2);
    assert!(!connects(&late, "10.20.0.2", 80), "a port that nobody has found");
    assert!(reaches(&node, "10.20.0.9", 3260), "the target serves without an agent");
    host.agent_start();
    // A target that ends while the control plane is away is started again from the ledger.
    let pid = nix::unistd::Pid::from_raw(before[0]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!([host.pid(&name), host.pid("netboot")], before, "found, not started again");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the target is started again", || {
        (host.pid_try(&name)? != before[0] && connects(&node, "10.20.0.9", 3260)).then_some(())
    });
    assert_eq!(host.pid("netboot"), before[1], "the boot services are not touched");
    host.control_plane.go_away(false);
    host.await_target(wanted.id, &ServiceStatus::Listening);
}

/// A node from DHCP to its login.
pub fn boot(mut host: Host) {
    let volume = host.volume("1.raw");
    let wanted = instance(1, &volume);
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let node = host.node(1, mac(1));
    let stranger = host.node(7, mac(7));

    // A stranger is lent an address and told to wait; BIOS firmware is given its loader.
    let (address, file) = dhcp(&host, &stranger, &["-x", "0x5d:0000"]);
    assert!(address.starts_with("10.20.0.") && file == "undionly.kpxe", "{address} {file}");
    run("ip", &["-n", &stranger, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    let copy = host.state.path().join("loader");
    let fetch = ["tftp", "-g", "-r", "undionly.kpxe", "-l", copy.to_str().unwrap(), "10.20.0.2"];
    run("ip", &[&["netns", "exec", &stranger, "busybox"][..], &fetch].concat());
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read("/usr/lib/ipxe/undionly.kpxe").unwrap());
    let (_, url) = dhcp(&host, &stranger, &["-x", "0x4d:69505845"]);
    let script = run("ip", &["netns", "exec", &stranger, "curl", "-sS", "--max-time", "5", &url]);
    assert!(script.contains("no instance for this node"), "{script}");

    // The node's iPXE is given its script, and only the node.
    let (address, url) = dhcp(&host, &node, &["-x", "0x4d:69505845"]);
    assert_eq!(address, "10.20.0.71");
    run("ip", &["-n", &node, "addr", "add", "10.20.0.71/24", "dev", "eth0"]);
    let stolen = run("ip", &["netns", "exec", &stranger, "curl", "-sS", "--max-time", "5", &url]);
    assert!(stolen.contains("token is spent") && !stolen.contains("password"), "{stolen}");
    let script = run("ip", &["netns", "exec", &node, "curl", "-sS", "--max-time", "5", &url]);
    let value = |key: &str| {
        let line = script.lines().find_map(|line| line.strip_prefix(key));
        assert!(line.is_some(), "{key}: {script}");
        line.unwrap().to_owned()
    };
    let (user, password) = (value("set username "), value("set password "));

    // What the script says logs in; afterwards the floor is in the gate, and lower boots are refused.
    let login = |user: &str, password: &str| {
        let url = format!("iscsi://{user}%{password}@10.20.0.9:3260/{}/0", wanted.target.iqn);
        let inquiry = ["iscsi-inq", "-i", wanted.initiator.as_str(), &url];
        output("ip", &[&["netns", "exec", &node][..], &inquiry].concat()).status.success()
    };
    assert!(!login(&user, "wrongwrongwrong1"), "another secret");
    assert!(login(&user, &password), "the script's secret");
    let boot: u64 = user.rsplit_once('-').unwrap().1.parse().unwrap();
    until("the floor is in the gate", || {
        let gate = std::fs::read_to_string(host.directory(&wanted.id.to_string()).join("boot.json")).unwrap();
        gate.contains(&format!("\"floor\":{boot}")).then_some(())
    });
    let earlier = bmi_types::BootUser { instance: wanted.id, boot: bmi_types::BootNumber(boot - 1) };
    let secret = bmi_types::boot_secret(&wanted.boot_key, earlier);
    assert!(!login(&earlier.to_string(), secret.expose()), "an earlier boot");

    // The timeline has each stage, and no token.
    let seen = until("the events arrive", || {
        let events = host.control_plane.events();
        let login = events.iter().any(|event| is_login(&event.from));
        // Two programs print, and nobody says in which order that arrives.
        let script = events.iter().any(|event| {
            matches!(
                &event.from,
                EventSource::Netboot { said: NetbootEvent::Script { instance: Some(_), .. } }
            )
        });
        (login && script).then_some(events)
    });
    let netboot: Vec<&NetbootEvent> = seen
        .iter()
        .filter_map(|event| match &event.from {
            EventSource::Netboot { said } => Some(said),
            _ => None,
        })
        .collect();
    let any = |is: fn(&NetbootEvent) -> bool| netboot.iter().any(|said| is(said));
    assert!(any(|said| matches!(said, NetbootEvent::Listening { .. })));
    assert!(any(|said| matches!(said, NetbootEvent::Dhcp { .. })));
    assert!(any(|said| matches!(said, NetbootEvent::Loader { bytes, .. } if *bytes > 10_000)));
    assert!(any(|said| matches!(said, NetbootEvent::Script { instance: Some(_), .. })));
    assert!(any(|said| matches!(said, NetbootEvent::Refused { .. })));
    let token = url.rsplit_once('/').unwrap().1;
    assert!(!serde_json::to_string(&seen).unwrap().contains(token));

    // Whatever is read first: the script was there before the login, and a login without an agent was before the agent.
    let at = |is: fn(&EventSource) -> bool| {
        seen.iter().filter(|event| is(&event.from)).map(|event| event.at).min()
    };
    let script = |from: &EventSource| {
        matches!(from, EventSource::Netboot { said: NetbootEvent::Script { instance: Some(_), .. } })
    };
    assert!(at(script).unwrap() < at(is_login).unwrap(), "{seen:#?}");
    host.agent_kill();
    assert!(login(&user, &password), "without an agent");
    let started = Timestamp::now();
    host.agent_start();
    let logins = until("the login is told", || {
        let events = host.control_plane.events().into_iter().filter(|event| is_login(&event.from));
        let at: Vec<Timestamp> = events.map(|event| event.at).collect();
        (at.len() > 1).then_some(at)
    });
    assert!(logins[1] < started, "{logins:?} and {started}");
}

const fn is_login(from: &EventSource) -> bool {
    matches!(from, EventSource::Target { said: TargetEvent::Login { boot: Some(_), .. }, .. })
}

/// What is wrong with one instance does not disturb another.
pub fn fault(mut host: Host) {
    let good = instance(1, &host.volume("1.raw"));
    let outside = tempfile::NamedTempFile::new().unwrap();
    let link = host.state.path().join("volumes/2.raw");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let bad =
        [instance(2, &link), instance(3, outside.path()), instance(4, &link.with_file_name("absent.raw"))];
    host.control_plane.want(desired(1, [&[good.clone()][..], &bad].concat()));
    host.agent_start();
    host.await_target(good.id, &ServiceStatus::Listening);
    for instance in &bad {
        until("the fault is reported", || {
            let status = host.control_plane.status()?;
            let found = status.instances.into_iter().find(|found| found.id == instance.id)?;
            matches!(found.target, ServiceStatus::Failed { .. }).then_some(())
        });
    }
    let meta = std::fs::metadata(outside.path()).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600), "a file elsewhere is not touched");
    assert_eq!(host.control_plane.status().unwrap().generation_observed, 1);
    host.control_plane.want(desired(2, vec![good]));
    host.await_generation(2, 1);
}

/// Twenty-four at once.
pub fn many(mut host: Host) {
    host.control_plane.want(desired(1, Vec::new()));
    host.agent_start();
    host.await_generation(1, 0);
    let instances: Vec<_> =
        (1..=24).map(|number| instance(number, &host.volume(&format!("{number}.raw")))).collect();
    let since = std::time::Instant::now();
    host.control_plane.want(desired(2, instances.clone()));
    for instance in &instances {
        host.await_target(instance.id, &ServiceStatus::Listening);
    }
    eprintln!("24 targets listen after {:?}", since.elapsed());
    let since = std::time::Instant::now();
    host.control_plane.want(desired(3, instances.into_iter().skip(1).collect()));
    host.await_generation(3, 23);
    eprintln!("one of 24 is gone after {:?}", since.elapsed());
    let since = std::time::Instant::now();
    host.control_plane.want(desired(4, Vec::new()));
    host.await_generation(4, 0);
    eprintln!("the other 23 are gone after {:?}", since.elapsed());
    let since = std::time::Instant::now();
    let one = instance(30, &host.volume("30.raw"));
    host.control_plane.want(desired(5, vec![one.clone()]));
    host.await_target(one.id, &ServiceStatus::Listening);
    eprintln!("one target listens after {:?}", since.elapsed());
}
