//! A container that was taken over: hostile code in the place of `bmi-target` and of `bmi-netboot`, with the same image,
//! user, filter and namespaces, tries to get out. What it tried and what stopped it is in `tests/golden/s3_container.txt`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[path = "support/attempts.rs"]
mod attempts;
#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use attempts::{CALLS, TARGET_CALLS, WITH_A_BROKER_MAY};
use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::status::ServiceStatus;
use bmi_tests::engine::Kind::{self, Docker, Podman};
use support::ceph::Ceph;
use support::{Host, connects, desired, instance, mac, output, until};

/// 128 and SIGSYS; 128 and SIGKILL.
const SIGSYS: i64 = 159;
const SIGKILL: i64 = 137;

const EACCES: i64 = 13;
const ENOENT: i64 = 2;
const EROFS: i64 = 30;
const ENOSPC: i64 = 28;
const EFBIG: i64 = 27;
const ECONNREFUSED: i64 = 111;

/// An attempt that is answered, and by what it is stopped.
type Row<'a> = (&'a str, String, &'a [i64], &'a str);

/// Images with the hostile program in the place of both.
fn evil_images() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("evil");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/evil.c");
    let built = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&program).arg(source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let build = Command::new(bmi_tests::repository().join("infra/containers/build"))
        .arg("--out")
        .arg(directory.path())
        .arg("--bmi-target")
        .arg(&program)
        .arg("--bmi-netboot")
        .arg(&program)
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    directory
}

struct Owned {
    host: Host,
    instances: Vec<DesiredInstance>,
    _images: tempfile::TempDir,
}

impl Owned {
    fn new(name: &str, kind: Kind) -> Self {
        let images = evil_images();
        let host = Host::with_engine(name, kind, images.path());
        let instances =
            (1..=2).map(|number| instance(number, &host.volume(&format!("{number}.raw")))).collect();
        Self::start(host, instances, images)
    }

    /// The same with disks in Ceph: each target has a broker.
    fn in_ceph(name: &str, kind: Kind, ceph: &Ceph) -> Self {
        let images = evil_images();
        let host = Host::with_engine(name, kind, images.path());
        host.ceph_reach();
        let adopted = |number: u8| {
            let (mut instance, volume) = (instance(number, "".as_ref()), format!("{name}-{number}"));
            ceph.volume(&volume);
            ceph.adopt(&mut instance, &volume, &format!("bmi-{volume}"));
            instance
        };
        Self::start(host, (1..=2).map(adopted).collect(), images)
    }

    fn start(mut host: Host, instances: Vec<DesiredInstance>, images: tempfile::TempDir) -> Self {
        host.control_plane.want(desired(1, instances.clone()));
        host.agent_start();
        for instance in &instances {
            host.await_target(instance.id, &ServiceStatus::Listening);
        }
        Self { host, instances, _images: images }
    }

    fn target(&self) -> String {
        self.instances[0].id.to_string()
    }

    /// One attempt inside the container of a process.
    fn attempt(&self, process: &str, attempt: &str, argument: &str) -> i64 {
        let program = if process == "netboot" { "/bmi-netboot" } else { "/bmi-target" };
        let command = [program, attempt, argument, "--lun", "0=file:/volumes/0"];
        self.host.engine.as_ref().unwrap().inside(&self.host.container(process), &command).0
    }
}

fn rows<'a>(owned: &Owned, kind: Kind) -> Vec<Row<'a>> {
    let row = |attempt, argument: &str, shows, by| -> Row<'a> { (attempt, argument.to_owned(), shows, by) };
    let host = |path: String| path;
    let state = owned.host.state.path().display().to_string();
    let pid = |process: &str| owned.host.pid(process);
    let neighbour = owned.instances[1].id.to_string();
    let mut rows = vec![
        row("read", "/etc/shadow", &[ENOENT], "its root: the image has one file"),
        row("execute", "/bin/sh", &[ENOENT], "its root"),
        row("execute", "/config/boot.json", &[EACCES], "mode of the file"),
        row("create", "/x", &[EROFS, EACCES], "read-only root"),
        row("create", "/volumes/x", &[EROFS, EACCES], "read-only root"),
        row("create", "/config/x", &[EROFS, EACCES], "read-only mount"),
        row("create", "/dev/x", &[EROFS, EACCES], "not its directory"),
        row("open-write", "/bmi-target", &[EROFS, EACCES, ENOENT], "read-only root"),
        row("open-write", "/config/boot.json", &[EROFS, EACCES], "read-only mount"),
        row("read", "/config/record.json", &[EACCES], "root's file"),
        row("read", "/dev/mem", &[ENOENT], "no device but null, zero, full, random, tty"),
        row("read", "/dev/kmsg", &[ENOENT], "no device"),
        row("read", "/dev/sda", &[ENOENT], "no device"),
        row("read", "/dev/kvm", &[ENOENT], "no device"),
        row("read", "/dev/net/tun", &[ENOENT], "no device"),
        row("open-write", "/proc/sys/kernel/core_pattern", &[EROFS, EACCES], "read-only /proc/sys"),
        row("open-write", "/proc/sys/net/ipv4/ip_forward", &[EROFS, EACCES], "read-only /proc/sys"),
        row(
            "open-write",
            "/proc/sysrq-trigger",
            &[EROFS, EACCES, ENOENT],
            "read-only, where the kernel has it",
        ),
        row("open-write", "/sys/kernel/uevent_helper", &[EROFS, EACCES, ENOENT], "read-only /sys"),
        row(
            "open-write",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            &[EROFS, EACCES, ENOENT],
            "read-only cgroup",
        ),
        row("threads", "", &[11], "limit of processes"),
        row("files", "", &[24], "limit of open files"),
        row("beyond", "", &[EFBIG], "limit of a file's size: its largest volume"),
        row("zero-grow", "", &[EFBIG], "limit of a file's size"),
        row("memory-written", "", &[SIGKILL], "limit of memory"),
        row("fork-clone3", "", &[38], "filter: answered, so that the C library goes back to clone"),
    ];
    for (path, by) in [
        (host(format!("{state}/volumes/2.raw")), "its neighbour's disk is not shown to it"),
        (
            host(format!("{state}/agent/run/{neighbour}/boot.json")),
            "its neighbour's secrets are not shown to it",
        ),
        (host(format!("{state}/agent/sockets/{neighbour}/nbd")), "its neighbour's socket is not shown to it"),
        (host(format!("{state}/agent/agent/ledger.json")), "the agent's ledger is not shown to it"),
        (
            owned.host.engine.as_ref().unwrap().socket().display().to_string(),
            "the engine's socket is not shown to it",
        ),
    ] {
        rows.push(("read", path, &[ENOENT], by));
    }
    for process in [&*neighbour, "netboot"] {
        let path = format!("/proc/{}/maps", pid(process));
        rows.push(("read", path, &[ENOENT], "its own process ids: others are not seen"));
    }
    // Podman gives it a little memory that looks like a directory; it counts as the container's.
    let shared = match kind {
        Docker => row("fill", "/dev/shm/x", &[ENOSPC], "size of /dev/shm"),
        Podman => row("fill", "/tmp/x", &[SIGKILL, ENOSPC, EFBIG], "limits of memory and of a file's size"),
    };
    rows.push(shared);
    rows
}

/// What differs from run to run is named.
fn told(owned: &Owned, argument: &str) -> String {
    let state = owned.host.state.path().display().to_string();
    let mut text = argument.replace(&state, "STATE");
    for (number, instance) in owned.instances.iter().enumerate() {
        text = text.replace(&instance.id.to_string(), &format!("INSTANCE-{}", number + 1));
        text =
            text.replace(&format!("/proc/{}/", owned.host.pid(&instance.id.to_string())), "/proc/NEIGHBOUR/");
    }
    text = text.replace(&format!("/proc/{}/", owned.host.pid("netboot")), "/proc/NETBOOT/");
    text.replace(&owned.host.engine.as_ref().unwrap().socket().display().to_string(), "ENGINE")
}

fn tries(name: &str, kind: Kind) -> String {
    let owned = Owned::new(name, kind);
    let (target, mut wrong, mut list) = (owned.target(), Vec::new(), String::new());
    let before = [owned.host.pid(&target), owned.host.pid("netboot")];
    let mut check = |process: &str, attempt: &str, argument: &str, shows: &[i64], by: &str| {
        let found = owned.attempt(process, attempt, argument);
        if !shows.contains(&found) {
            wrong.push(format!("{process} {attempt} {argument}: {found}, not {shows:?}"));
        }
        let argument = told(&owned, argument);
        let process = if process == "netboot" { "netboot" } else { "target" };
        writeln!(list, "{kind:?} {process}: {attempt} {argument}: {by}").unwrap();
    };
    // That what is held is not held by a mistake.
    for attempt in ["nothing", "write", "zero", "punch", "read-ahead", "let-go", "listen", "thread"] {
        check(&target, attempt, "", &[0], "may");
    }
    for attempt in CALLS.iter().chain(TARGET_CALLS) {
        check(&target, attempt, "1", &[SIGSYS], "filter");
    }
    for attempt in CALLS {
        check("netboot", attempt, "1", &[SIGSYS], "filter");
    }
    for (attempt, argument, shows, by) in rows(&owned, kind) {
        check(&target, attempt, &argument, shows, by);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!([owned.host.pid(&target), owned.host.pid("netboot")], before, "and what was there is there");
    list
}

#[test]
fn s3_hostile_code_in_a_container_does_not_get_out() {
    let list = format!("{}{}", tries("sd", Docker), tries("sp", Podman));
    let path = bmi_tests::repository().join("tests/golden/s3_container.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &list).unwrap();
    }
    assert_eq!(list, std::fs::read_to_string(&path).unwrap_or_default(), "UPDATE_GOLDEN=1 writes it");
}

fn tries_with_a_broker(name: &str, kind: Kind) {
    let ceph = Ceph::start();
    let owned = Owned::in_ceph(name, kind, &ceph);
    let (target, sockets) = (owned.target(), owned.host.state.path().join("agent/sockets"));
    let neighbour = sockets.join(owned.instances[1].id.to_string()).join("nbd");
    assert!(neighbour.exists(), "there is something to be reached");
    let neighbour = neighbour.display().to_string();
    let engine = owned.host.engine.as_ref().unwrap().socket().display().to_string();
    let mut wrong = Vec::new();
    let mut check = |attempt: &str, argument: &str, shows: &[i64]| {
        let found = owned.attempt(&target, attempt, argument);
        if !shows.contains(&found) {
            wrong.push(format!("{kind:?} {attempt} {argument}: {found}, not {shows:?}"));
        }
    };
    for attempt in CALLS.iter().filter(|attempt| !WITH_A_BROKER_MAY.contains(attempt)) {
        check(attempt, "1", &[SIGSYS]);
    }
    check("unix-path", "/broker/nbd", &[0]);
    check("unix-path", &neighbour, &[ENOENT]);
    check("unix-path", &engine, &[ENOENT]);
    check("read", "/broker/clients", &[EACCES]);
    check("create", "/broker/x", &[EROFS, EACCES]);
    check("list", "/broker", &[EACCES]);
    // In its own network nobody listens. TCP it may ask for, and its namespace's rules send nothing (below).
    check("unix-abstract", "x", &[ECONNREFUSED]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn s3_docker_a_target_with_a_broker_reaches_that_broker_s_socket_and_no_other() {
    tries_with_a_broker("bd", Docker);
}

#[test]
fn s3_podman_a_target_with_a_broker_reaches_that_broker_s_socket_and_no_other() {
    tries_with_a_broker("bp", Podman);
}

#[test]
fn s3_a_containers_network_leads_to_its_node_and_nowhere_else() {
    let mut owned = Owned::new("sn", Docker);
    let (one, two) = (owned.host.node(1, mac(1)), owned.host.node(2, mac(2)));
    support::address_take(&one, "10.20.0.71");
    support::address_take(&two, "10.20.0.72");
    // Something that would answer on the host itself, if anything led there.
    let namespace = owned.host.namespace.clone();
    support::run("ip", &["-n", &namespace, "addr", "add", "10.20.0.1/24", "dev", "bmi0"]);
    for namespace in [&namespace, &one, &two] {
        support::run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
    }
    let listens = |namespace: &str, address: &str| {
        Command::new("ip")
            .args(["netns", "exec", namespace, "python3", "-m", "http.server", "--bind", address, "9999"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut servers =
        [listens(&namespace, "10.20.0.1"), listens(&one, "10.20.0.71"), listens(&two, "10.20.0.72")];
    for (where_, address) in [(&namespace, "10.20.0.1"), (&one, "10.20.0.71"), (&two, "10.20.0.72")] {
        until("what is there to be reached answers", || connects(where_, address, 9999).then_some(()));
    }
    // As root in the container's network, with no filter: more than whoever owns the container can do.
    for process in [owned.target(), "netboot".to_owned()] {
        let pid = owned.host.pid(&process).to_string();
        let reaches = |address: &str, port: u16| {
            let script = format!("exec 3<>/dev/tcp/{address}/{port}");
            output("nsenter", &["-t", &pid, "-n", "timeout", "1", "bash", "-c", &script]).status.success()
        };
        for (address, port) in [
            ("10.20.0.1", 9999),
            ("10.20.0.71", 9999),
            ("10.20.0.72", 9999),
            ("10.20.0.2", 80),
            ("10.20.0.10", 3260),
            ("127.0.0.1", 3300),
            ("192.0.2.1", 443),
        ] {
            assert!(!reaches(address, port), "{process} reaches {address}:{port}");
        }
        let routes = output("nsenter", &["-t", &pid, "-n", "ip", "-j", "route"]);
        let routes: serde_json::Value = serde_json::from_slice(&routes.stdout).unwrap();
        let routes = routes.as_array().unwrap();
        assert!(routes.len() == 1 && routes[0]["dst"] == "10.20.0.0/24", "{routes:?}");
    }
    servers.iter_mut().for_each(|server| {
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

#[test]
fn s3_a_container_that_prints_without_end_fills_nothing_and_stops_nobody() {
    for kind in Kind::each() {
        let owned = Owned::new("sf", kind);
        let target = owned.target();
        // It has printed 16 MiB by now, or waits to.
        let files = || {
            let found = owned.host.engine.as_ref().unwrap().log_bytes();
            (found > 0).then_some(found)
        };
        until("something is kept", files);
        std::thread::sleep(std::time::Duration::from_secs(3));
        let kept = files().unwrap();
        assert!(kept < 3 * (2 << 20) + (1 << 20), "{kind:?} keeps {kept} bytes of three containers");
        let log = owned.host.directory(&target).join("log");
        assert!(std::fs::metadata(log).map_or(0, |it| it.len()) <= 1 << 20);
        // The agent is not held up by what it does not read.
        let third = instance(3, &owned.host.volume("3.raw"));
        let all: Vec<_> = owned.instances.iter().cloned().chain([third.clone()]).collect();
        owned.host.control_plane.want(desired(2, all));
        owned.host.await_target(third.id, &ServiceStatus::Listening);
    }
}

#[test]
fn s3_what_the_boot_services_know_opens_no_disk_from_where_they_are() {
    let mut host = Host::with_engine("sk", Docker, &bmi_tests::engine::images());
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    // The boot services can make the secret of any boot of their network, and know every name.
    let user = bmi_types::BootUser { instance: wanted.id, boot: bmi_types::BootNumber(4_000_000_000) };
    let secret = bmi_types::boot_secret(&wanted.boot_key, user);
    let url =
        format!("iscsi://{user}%{}@{}:3260/{}/0", secret.expose(), wanted.target.address, wanted.target.iqn);
    let login = |inside: &[&str]| {
        let inquiry = ["timeout", "4", "iscsi-inq", "-i", wanted.initiator.as_str(), &url];
        let words = [inside, &inquiry].concat();
        output(words[0], &words[1..]).status.success()
    };
    let netboot = host.pid("netboot").to_string();
    let from_netboot = ["nsenter", "-t", &netboot, "-n"];
    assert!(!login(&from_netboot), "from the boot services' own place");
    // Not even when their own rules are gone: the bridge and the target know who the node is.
    support::run("nsenter", &["-t", &netboot, "-n", "nft", "flush", "ruleset"]);
    assert!(!login(&from_netboot), "without their own rules");
    support::run("ip", &["netns", "exec", &host.namespace, "nft", "delete", "table", "bridge", "bmi_bmi0"]);
    assert!(!login(&from_netboot), "without the bridge's");
    // That it is the place, and not the secret: from the node's it opens the disk.
    let node = host.node_unchecked(1, mac(1));
    support::address_take(&node, "10.20.0.71");
    until("the node's way is there", || login(&["ip", "netns", "exec", &node]).then_some(()));
}
