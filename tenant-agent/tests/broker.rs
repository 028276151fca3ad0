//! An instance whose disk is in Ceph: its broker, what it may and may not, and that a node hardly notices its end.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking and prints what it measured; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::event::{BrokerEvent, EventSource};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::{BootNumber, BootUser, boot_secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::ceph::{Ceph, golden};
use support::{Host, UID_BASE, desired, instance, mac, output, proc_status, run, until};

/// The number of the boot that logs in.
const BOOT: BootNumber = BootNumber(1_000);

/// The options by which QEMU's tools reach an instance's disk from its node.
fn disk(of: &DesiredInstance) -> [String; 3] {
    let user = BootUser { instance: of.id, boot: BOOT };
    let secret = boot_secret(&of.boot_key, user);
    [
        "--object".to_owned(),
        format!("secret,id=chap,data={}", secret.expose()),
        format!(
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={}:3260,file.target={},file.lun=0,\
             file.user={user},file.password-secret=chap,file.initiator-name={}",
            of.target.address, of.target.iqn, of.initiator
        ),
    ]
}

/// How long one of QEMU's tools may run, in seconds: without a limit it would wait for ever for a disk that is gone.
const TOOL: &str = "90";

/// One of QEMU's tools in a node.
fn in_node(node: &str, program: &str, of: &DesiredInstance, words: &[&str]) -> Command {
    let [object, secret, disk] = disk(of);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", node, "timeout", TOOL, program]);
    match words {
        [verb, rest @ ..] if program == "qemu-img" => {
            command.args([verb, &*object, &secret]).args(rest).args(["--image-opts", &disk]);
        }
        words => {
            command.args([&*object, &secret]).args(words).args(["--image-opts", &disk]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn must(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// All of an instance's disk, as its node reads it.
fn content(node: &str, of: &DesiredInstance) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = in_node(node, "qemu-img", of, &["convert", "-O", "raw"]);
    command.arg(file.path());
    must(command);
    std::fs::read(file.path()).unwrap()
}

/// The brokers' way to be heard by the control plane: how often one was started again, and after what.
fn restarts(host: &Host, of: &DesiredInstance) -> Vec<String> {
    let after = |from: EventSource| match from {
        EventSource::Broker { instance, said: BrokerEvent::Restarted { after } } if instance == of.id => {
            Some(after)
        }
        _ => None,
    };
    host.control_plane.events().into_iter().filter_map(|event| after(event.from)).collect()
}

/// Writes a pattern again and again, one request after the other.
fn load(node: &str, of: &DesiredInstance, count: usize) -> Child {
    let writes: Vec<String> =
        (0..count).map(|at| format!("write -q -P 165 {}k 64k", at % 256 * 64)).collect();
    let words: Vec<&str> = writes.iter().flat_map(|write| ["-c", write]).collect();
    in_node(node, "qemu-io", of, &words).spawn().unwrap()
}

fn node_of(host: &mut Host, number: u8) -> String {
    let node = host.node(number, mac(number));
    run("ip", &["-n", &node, "addr", "add", &format!("10.20.0.{}/24", 70 + number), "dev", "eth0"]);
    node
}

fn uid_of(host: &Host, process: &str) -> u32 {
    proc_status(host.pid(process), "Uid").split(' ').next().unwrap().parse().unwrap()
}

/// The error with which a user may not connect; nothing when it may.
fn connect_as(uid: u32, socket: &str) -> Option<String> {
    let script = format!(
        "import os, socket\nos.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n\
         s = socket.socket(socket.AF_UNIX)\ntry: s.connect({socket:?})\nexcept OSError as e: print(e.errno)\n"
    );
    let said = run("python3", &["-c", &script]);
    let said = said.trim();
    (!said.is_empty()).then(|| said.to_owned())
}

/// The cluster of those tests that change nothing for the others.
fn shared() -> &'static Ceph {
    static SHARED: OnceLock<Ceph> = OnceLock::new();
    SHARED.get_or_init(Ceph::start)
}

/// A host that serves one instance, whose disk is in Ceph, in a volume of that name.
fn serving(name: &str, ceph: &Ceph) -> (Host, DesiredInstance) {
    let mut host = Host::new(name);
    host.ceph_reach();
    let mut one = instance(1, "".as_ref());
    ceph.volume(name);
    ceph.adopt(&mut one, name, &format!("bmi-{name}-1"));
    host.control_plane.want(desired(1, vec![one.clone()]));
    host.agent_start_logged();
    host.await_target(one.id, &ServiceStatus::Listening);
    (host, one)
}

#[test]
fn an_instance_in_ceph_has_a_broker_that_only_its_target_reaches() {
    let ceph = shared();
    let mut host = Host::new("broker");
    host.ceph_reach();
    let mut both = [instance(1, "".as_ref()), instance(2, "".as_ref())];
    for (number, instance) in both.iter_mut().enumerate() {
        let name = format!("volume-{number}");
        ceph.volume(&name);
        ceph.adopt(instance, &name, &format!("bmi-{name}"));
    }
    host.control_plane.want(desired(1, both.to_vec()));
    let begun = Instant::now();
    host.agent_start_logged();
    for instance in &both {
        host.await_target(instance.id, &ServiceStatus::Listening);
    }
    println!("both listen after {:?}", begun.elapsed());

    // The broker has no right but to its socket and to Ceph.
    let brokers = both.each_ref().map(|instance| format!("broker-{}", instance.id));
    let targets = both.each_ref().map(|instance| instance.id.to_string());
    let pid = host.pid(&brokers[0]);
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(proc_status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!((&*proc_status(pid, "NoNewPrivs"), &*proc_status(pid, "Seccomp")), ("1", "2"));
    // It is in the network where Ceph is, and the nodes' network is in another.
    let network = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
    assert_eq!(network(&pid.to_string()), network("self"));
    assert_ne!(network(&pid.to_string()), network(&host.pid("netboot").to_string()));
    assert!(host.link("bmi0").is_some() && !output("ip", &["link", "show", "bmi0"]).status.success());
    println!("{} threads, {}", proc_status(pid, "Threads"), proc_status(pid, "VmRSS"));
    let seen = std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().flatten();
    let seen: Vec<String> = seen.map(|entry| entry.file_name().into_string().unwrap()).collect();
    for hidden in ["etc", "var", "dev", "sys", "run", "home", "root", "bin"] {
        assert!(!seen.iter().any(|name| name == hidden), "it sees /{hidden}");
    }
    assert!(std::fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    let key = both[0].ceph.as_ref().unwrap().key.expose().to_owned();
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!arguments.contains(&key), "no key in arguments");
    let uids: Vec<u32> = brokers.iter().chain(&targets).map(|name| uid_of(&host, name)).collect();
    let mut distinct = uids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "a user each: {uids:?}");
    let config = host.directory(&brokers[0]).join("broker.json");
    let meta = std::fs::metadata(&config).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (0, uids[0], 0o640));

    // Only its own target's user may connect.
    let sockets = host.state.path().join("agent/sockets").join(&targets[0]);
    let socket = sockets.join("nbd").to_str().unwrap().to_owned();
    std::fs::set_permissions(host.state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let meta = std::fs::metadata(&sockets).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (0, uids[2], 0o710));
    assert_eq!(connect_as(uids[2], &socket), None, "its target");
    for other in [uids[3], uids[0], uids[1], UID_BASE, 65534] {
        assert_eq!(connect_as(other, &socket).as_deref(), Some("13"), "EACCES for {other}");
    }

    // The node has the golden image.
    let node = node_of(&mut host, 1);
    assert!(content(&node, &both[0]) == golden());

    // Removal leaves nothing: no process, directory, socket or secret.
    let pid = host.pid(&brokers[0]);
    host.control_plane.want(desired(2, vec![both[1].clone()]));
    host.await_generation(2, 1);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!host.directory(&brokers[0]).exists() && !sockets.exists());
    let left = output("grep", &["-rlF", &key, host.state.path().to_str().unwrap()]);
    assert!(left.stdout.is_empty(), "the key is in {}", String::from_utf8_lossy(&left.stdout));
    ceph.rbd(&["rm", "--no-progress", "bmi/a/volume-0"]);
}

/// Also where the golden image has data, which the volume has not yet: what is beside it in an object is
/// copied then.
#[test]
fn t5_what_is_unmapped_through_a_broker_reads_as_zeroes_and_what_is_beside_it_stays() {
    let (mut host, one) = serving("brokerzero", shared());
    let node = node_of(&mut host, 1);
    let mut expected = golden();
    // Within an object, over the edge of two, a whole one with a block of each neighbour, and over what was
    // written before.
    let written = (12 << 20, 1 << 20);
    let ranges = [
        ("discard", (512, 1 << 20)),
        ("write -z -u", (3 << 20, 65 << 10)),
        ("discard", ((4 << 20) - 1536, 8704)),
        ("write -z -u", ((8 << 20) - 512, (4 << 20) + 1024)),
        ("discard", (written.0 + 1536, 512)),
        ("write -z -u", (written.0 + 8192 - 512, 66_560)),
        ("write -z", ((14 << 20) + 512, 1024)),
    ];
    let mut words = vec!["-c".to_owned(), format!("write -P 7 {} {}", written.0, written.1)];
    expected[written.0..written.0 + written.1].fill(7);
    for (how, (at, length)) in ranges {
        words.extend(["-c".to_owned(), format!("{how} {at} {length}")]);
        expected[at..at + length].fill(0);
    }
    words.extend(["-c", "flush"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = must(in_node(&node, "qemu-io", &one, &words));
    assert!(!said.contains("failed"), "{said}");
    let found = content(&node, &one);
    let differ = |block: &usize| found[block * 512..][..512] != expected[block * 512..][..512];
    let differing: Vec<usize> = (0..expected.len() / 512).filter(differ).take(10).collect();
    assert_eq!((found.len(), differing), (expected.len(), Vec::new()), "blocks that differ");
}

#[test]
fn b4_a_node_writes_on_when_its_broker_is_killed_or_fenced() {
    let ceph = Ceph::start();
    let (mut host, mut one) = serving("brokerkill", &ceph);
    let node = node_of(&mut host, 1);
    let (broker, target) = (format!("broker-{}", one.id), one.id.to_string());
    let serving = host.pid(&target);

    // Killed: the next one is there in a moment, and no write that was answered is lost.
    let writing = load(&node, &one, 3000);
    std::thread::sleep(Duration::from_millis(500));
    let before = host.pid(&broker);
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    until("another broker", || (host.pid_try(&broker)? != before).then_some(()));
    println!("another broker after {:?}", killed.elapsed());
    let ended = writing.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    println!("the load ended {:?} after the kill", killed.elapsed());
    must(in_node(&node, "qemu-io", &one, &["-c", "read -P 165 0 16M"]));
    until("the timeline says so", || {
        restarts(&host, &one).iter().any(|it| it.contains("SIGKILL")).then_some(())
    });

    // Fenced, as the control plane does it, and then given another key.
    let clients = host.state.path().join("agent/sockets").join(&target).join("clients");
    let address = std::fs::read_to_string(&clients).unwrap().trim().to_owned();
    ceph.ceph(&["auth", "rm", "client.bmi-brokerkill-1"]);
    ceph.ceph(&["osd", "blocklist", "add", &address, "31536000"]);
    let fenced = host.pid(&broker);
    let writing = load(&node, &one, 1000);
    // Its status, not its log: that goes with it when its successor is started, which the old key does not let in.
    let ended = format!("process=broker-{}", one.id);
    until("it ends as one that was fenced", || {
        let log = std::fs::read_to_string(host.agent_log()).unwrap();
        let told =
            |line: &str| line.contains(&ended) && line.contains("exit status: 3") && line.contains("fenced");
        log.lines().any(told).then_some(())
    });
    assert!(!Path::new(&format!("/proc/{fenced}")).exists());
    ceph.adopt(&mut one, "brokerkill", "bmi-brokerkill-2");
    host.control_plane.want(desired(2, vec![one.clone()]));
    let ended = writing.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    must(in_node(&node, "qemu-io", &one, &["-c", "read -P 165 0 16M"]));
    until("the timeline says so again", || (restarts(&host, &one).len() > 1).then_some(()));
    assert_eq!(host.pid(&target), serving, "the target was not started again for any of it");
}

/// Whether a user gets a TCP connection, in the network in which Ceph is.
fn connects_as(uid: u32, address: SocketAddr) -> bool {
    let script = format!(
        "import os, socket\nos.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n\
         s = socket.socket()\ns.settimeout(2)\ns.connect(({:?}, {}))\n",
        address.ip().to_string(),
        address.port()
    );
    output("python3", &["-c", &script]).status.success()
}

/// The error with which a user may not send a datagram; nothing when it may.
fn sends_as(uid: u32, address: SocketAddr) -> Option<String> {
    let script = format!(
        "import os, socket\nos.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry: s.sendto(b'x', ({:?}, {}))\nexcept OSError as e: \
         print(e.errno)\n",
        address.ip().to_string(),
        address.port()
    );
    let said = run("python3", &["-c", &script]);
    let said = said.trim();
    (!said.is_empty()).then(|| said.to_owned())
}

#[test]
fn what_runs_as_a_broker_s_user_reaches_ceph_s_ports_and_nothing_else_of_its_host_s_network() {
    let (host, one) = serving("brokerout", shared());

    // Whoever is a broker's user, without its filter and without Landlock; and beside it another user.
    let broker = uid_of(&host, &format!("broker-{}", one.id));
    let mon_host = &one.ceph.as_ref().unwrap().mon_host;
    let monitor =
        mon_host.trim_start_matches('[').trim_start_matches("v2:").split([',', '/', ']']).next().unwrap();
    let monitor: SocketAddr = monitor.parse().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = other.local_addr().unwrap();
    let refused = |when: &str| {
        assert!(connects_as(broker, monitor), "{when}: the monitor {monitor}");
        assert!(!connects_as(broker, other), "{when}: another port");
        assert_eq!(sends_as(broker, other).as_deref(), Some("1"), "{when}: EPERM for a datagram");
        assert_eq!(
            sends_as(broker, monitor).as_deref(),
            Some("1"),
            "{when}: EPERM for one to a monitor's port"
        );
        assert!(connects_as(65_534, other) && sends_as(65_534, other).is_none(), "{when}: who is no broker");
    };
    refused("at the start");

    // It is counted, and told.
    let dropped = || {
        let by = format!("broker-{}", one.id);
        host.control_plane.status()?.dropped.into_iter().find(|it| it.by == by && it.packets > 0)
    };
    until("what it tried is counted", dropped);

    // Somebody removes the rules of the host.
    let table = format!("bmi_brokers_{UID_BASE}");
    run("nft", &["delete", "table", "inet", &table]);
    host.await_restored(&table);
    refused("after its rules were removed");

    // The last broker takes them with it.
    host.control_plane.want(desired(2, Vec::new()));
    host.await_generation(2, 0);
    let left = run("nft", &["list", "tables"]);
    assert!(!left.contains(&table), "{left}");
}
