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

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use attempts::{CALLS, TARGET_CALLS, WITH_A_BROKER_MAY};
use bmi_agent_api::desired::DesiredInstance;
use bmi_agent_api::status::ServiceStatus;
use bmi_tests::engine::Kind::{self, Docker, Podman};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use support::ceph::Ceph;
use support::{Host, connects, desired, instance, mac, output, until};

/// How an attempt ends: 0, an error's number, or 128 and the number of a signal.
const DONE: i64 = 0;
const SIGSYS: i64 = 159;
const SIGKILL: i64 = 137;

const ENOENT: i64 = 2;
const EAGAIN: i64 = 11;
const EACCES: i64 = 13;
const EMFILE: i64 = 24;
const EFBIG: i64 = 27;
const ENOSPC: i64 = 28;
const EROFS: i64 = 30;
const ENOSYS: i64 = 38;
const ECONNREFUSED: i64 = 111;

/// Engines differ in which comes first: what is mounted read-only, or who owns the file.
const NOT_WRITTEN: &[i64] = &[EROFS, EACCES];
/// The same of what some kernels do not have. Where the container has it, its absence does not count.
const NOT_WRITTEN_IF_THERE: &[i64] = &[EROFS, EACCES, ENOENT];

/// The boot services, as a process and in what is told.
const NETBOOT: &str = "netboot";

/// All devices that a container has, or may have: none that is more than itself.
const DEVICES: [&str; 9] =
    ["console", "full", "null", "ptmx", "pts/ptmx", "random", "tty", "urandom", "zero"];

/// An attempt, at what, how it may end, and why.
type Row = (&'static str, String, &'static [i64], &'static str);

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
        let command = [program(process), attempt, argument, "--lun", "0=file:/volumes/0"];
        self.host.engine.as_ref().unwrap().inside(&self.host.container(process), &command).0
    }

    /// Whether a process sees something at a place.
    fn sees(&self, process: &str, place: &str) -> bool {
        place.starts_with('/') && Path::new(&format!("/proc/{}/root{place}", self.host.pid(process))).exists()
    }

    /// The engine's socket, and the control plane's.
    fn sockets(&self) -> [String; 2] {
        let config = std::fs::read_to_string(self.host.config()).unwrap();
        let theirs = config.lines().find_map(|line| line.strip_prefix("control_plane = \"unix:")).unwrap();
        let engine = self.host.engine.as_ref().unwrap().socket();
        [engine.display().to_string(), theirs.trim_end_matches('"').to_owned()]
    }
}

fn program(process: &str) -> &'static str {
    if process == NETBOOT { "/bmi-netboot" } else { "/bmi-target" }
}

fn row(attempt: &'static str, argument: &str, shows: &'static [i64], by: &'static str) -> Row {
    (attempt, argument.to_owned(), shows, by)
}

/// What an honest program does: that what is held is not held by a mistake.
fn honest(process: &str) -> Vec<Row> {
    let may = |attempt| row(attempt, "", &[DONE], "it may");
    if process == NETBOOT {
        let own = ["/config/netboot.json", "/loaders/undionly.kpxe"];
        let own = own.map(|path| row("read", path, &[DONE], "it may"));
        return ["nothing", "udp", "listen", "thread"].map(may).into_iter().chain(own).collect();
    }
    let all = ["nothing", "write", "zero", "punch", "read-ahead", "let-go", "listen", "thread"].map(may);
    all.into_iter().chain([row("read", "/config/boot.json", &[DONE], "it may")]).collect()
}

/// System calls that no honest program makes.
fn calls(process: &str) -> Vec<Row> {
    let own: &[&str] = if process == NETBOOT { &[] } else { TARGET_CALLS };
    CALLS.iter().chain(own).map(|attempt| row(attempt, "1", &[SIGSYS], "filter")).collect()
}

/// Files of the container's own.
fn files(process: &str) -> Vec<Row> {
    let mut rows = vec![
        row("read", "/etc/shadow", &[ENOENT], "its root: the image has one file"),
        row("execute", "/bin/sh", &[ENOENT], "its root"),
        row("create", "/x", NOT_WRITTEN, "read-only root"),
        row("create", "/volumes/x", NOT_WRITTEN, "read-only root"),
        row("create", "/config/x", NOT_WRITTEN, "read-only mount"),
        row("create", "/dev/x", NOT_WRITTEN, "not its directory"),
        row("open-write", program(process), NOT_WRITTEN, "read-only root"),
        row("read", "/config/record.json", &[EACCES], "root's file"),
    ];
    let config = if process == NETBOOT { "/config/netboot.json" } else { "/config/boot.json" };
    rows.push(row("execute", config, &[EACCES], "mode of the file"));
    rows.push(row("open-write", config, NOT_WRITTEN, "read-only mount"));
    if process == NETBOOT {
        rows.push(row("create", "/loaders/x", NOT_WRITTEN, "read-only mount"));
        rows.push(row("open-write", "/loaders/undionly.kpxe", NOT_WRITTEN, "read-only mount"));
        rows.push(row("read", "/volumes/0", &[ENOENT], "it has no disk"));
    } else {
        rows.push(row("read", "/loaders/undionly.kpxe", &[ENOENT], "not shown to a target"));
    }
    rows
}

/// The host's devices and its kernel's settings.
fn kernel() -> Vec<Row> {
    let absent = "absent in the container, whether the host has it or not";
    let made = "filter: nor is it made by its number";
    let mut rows = Vec::new();
    for (path, number) in [
        ("/dev/mem", Some("c1:1")),
        ("/dev/kmsg", None),
        ("/dev/sda", Some("b8:0")),
        ("/dev/kvm", Some("c10:232")),
        ("/dev/net/tun", None),
    ] {
        rows.push(row("read", path, &[ENOENT], absent));
        rows.extend(number.map(|number| row("device", number, &[SIGSYS], made)));
    }
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward"] {
        rows.push(row("open-write", path, NOT_WRITTEN, "read-only /proc/sys"));
    }
    for (path, by) in [
        ("/proc/sysrq-trigger", "read-only, where the kernel has it"),
        ("/sys/kernel/uevent_helper", "read-only /sys, where the kernel has it"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "read-only cgroup of version 1"),
        ("/sys/fs/cgroup/memory.max", "read-only cgroup of version 2"),
    ] {
        rows.push(row("open-write", path, NOT_WRITTEN_IF_THERE, by));
    }
    rows
}

/// What would use up what others need.
fn bombs(kind: Kind, process: &str) -> Vec<Row> {
    let mut rows = vec![
        row("threads", "", &[EAGAIN], "limit of processes"),
        row("files", "", &[EMFILE], "limit of open files"),
        row("memory-written", "", &[SIGKILL], "limit of memory"),
        row("fork-clone3", "", &[ENOSYS], "filter: answered, so that the C library goes back to clone"),
    ];
    if process != NETBOOT {
        rows.push(row("beyond", "", &[EFBIG], "limit of a file's size: its largest volume"));
        rows.push(row("zero-grow", "", &[EFBIG], "limit of a file's size"));
    }
    // Podman gives it a little memory that looks like a directory; it counts as the container's.
    rows.push(match (kind, process) {
        (Docker, NETBOOT) => row("fill", "/dev/shm/x", &[EFBIG], "limit of a file's size: it has none"),
        (Podman, NETBOOT) => row("fill", "/tmp/x", &[EFBIG], "limit of a file's size: it has none"),
        (Docker, _) => row("fill", "/dev/shm/x", &[ENOSPC], "size of /dev/shm"),
        (Podman, _) => {
            row("fill", "/tmp/x", &[SIGKILL, ENOSPC, EFBIG], "limits of memory and of a file's size")
        }
    });
    rows
}

/// What is there on the host, and is others'.
fn others(owned: &Owned, process: &str) -> Vec<Row> {
    let state = owned.host.state.path().display().to_string();
    let neighbour = owned.instances[1].id.to_string();
    let mut files = vec![
        (format!("{state}/volumes/2.raw"), "its neighbour's disk is not shown to it"),
        (format!("{state}/agent/run/{neighbour}/boot.json"), "its neighbour's secrets are not shown to it"),
        (format!("{state}/agent/agent/ledger.json"), "the agent's ledger is not shown to it"),
    ];
    if process != NETBOOT {
        let keys = format!("{state}/agent/run/netboot/netboot.json");
        files.push((keys, "the boot services' keys are not shown to it"));
    }
    let mut rows: Vec<Row> = Vec::new();
    for (path, by) in files {
        assert!(Path::new(&path).exists(), "{path}: there is something to be read");
        rows.push(("read", path, &[ENOENT], by));
    }
    for path in owned.sockets() {
        assert!(Path::new(&path).exists(), "{path}: there is something to be reached");
        rows.push(row("read", &path, &[ENOENT], "the socket is not shown to it"));
        rows.push(row("unix-path", &path, &[SIGSYS], "filter: no socket but IPv4"));
    }
    let own = if process == NETBOOT { owned.target() } else { NETBOOT.to_owned() };
    for other in [own, neighbour] {
        let path = format!("/proc/{}/maps", owned.host.pid(&other));
        rows.push(("read", path, &[ENOENT], "its own process ids: others are not seen"));
    }
    rows
}

/// The devices that a process has, by their names below `/dev`.
fn devices(owned: &Owned, process: &str) -> BTreeSet<String> {
    let root = PathBuf::from(format!("/proc/{}/root/dev", owned.host.pid(process)));
    let (mut found, mut open) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_char_device() || kind.is_block_device() {
                found.insert(entry.path().strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    found
}

/// What differs from run to run is named.
fn told(owned: &Owned, argument: &str) -> String {
    let state = owned.host.state.path().display().to_string();
    let mut text = argument.replace(&state, "STATE");
    for (number, instance) in (1..).zip(&owned.instances) {
        let id = instance.id.to_string();
        text = text.replace(&format!("/proc/{}/", owned.host.pid(&id)), &format!("/proc/INSTANCE-{number}/"));
        text = text.replace(&id, &format!("INSTANCE-{number}"));
    }
    text = text.replace(&format!("/proc/{}/", owned.host.pid(NETBOOT)), "/proc/NETBOOT/");
    let [engine, control_plane] = owned.sockets();
    text.replace(&engine, "ENGINE").replace(&control_plane, "CONTROL-PLANE")
}

/// How an attempt ended, as the kernel calls it.
fn ended(code: i64) -> String {
    let code = i32::try_from(code).unwrap();
    match Signal::try_from(code - 128) {
        _ if code == 0 => "done".to_owned(),
        Ok(signal) => signal.to_string(),
        Err(_) => format!("{:?}", Errno::from_raw(code)),
    }
}

fn tries(name: &str, kind: Kind) -> String {
    let owned = Owned::new(name, kind);
    let (target, mut wrong, mut list) = (owned.target(), Vec::new(), String::new());
    let before = [owned.host.pid(&target), owned.host.pid(NETBOOT)];
    for process in [&*target, NETBOOT] {
        let name = if process == NETBOOT { NETBOOT } else { "target" };
        let rows = [
            honest(process),
            calls(process),
            files(process),
            kernel(),
            bombs(kind, process),
            others(&owned, process),
        ];
        for (attempt, argument, shows, by) in rows.concat() {
            let found = owned.attempt(process, attempt, &argument);
            if !shows.contains(&found) {
                wrong.push(format!("{name} {attempt} {argument}: {}, not {shows:?}", ended(found)));
            }
            if found == ENOENT && owned.sees(process, &argument) {
                wrong.push(format!("{name} {attempt} {argument}: it is there"));
            }
            // What stopped it; all that may, where engines differ.
            let how = match shows {
                [_] => ended(found),
                several => several.iter().map(|code| ended(*code)).collect::<Vec<_>>().join(" or "),
            };
            let tried = format!("{attempt} {}", told(&owned, &argument));
            writeln!(list, "{kind:?} {name}: {} → {how} ({by})", tried.trim_end()).unwrap();
        }
        let more: Vec<_> =
            devices(&owned, process).into_iter().filter(|it| !DEVICES.contains(&&**it)).collect();
        assert!(more.is_empty(), "{kind:?} {name} has {more:?}");
        writeln!(list, "{kind:?} {name}: has no device but {}", DEVICES.join(", ")).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!([owned.host.pid(&target), owned.host.pid(NETBOOT)], before, "and what was there is there");
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
    let theirs = |at: usize| {
        let socket = sockets.join(owned.instances[at].id.to_string()).join("nbd");
        assert!(socket.exists(), "there is something to be reached");
        socket.display().to_string()
    };
    let [own, neighbour] = [0, 1].map(theirs);
    let [engine, _] = owned.sockets();
    let mut wrong = Vec::new();
    let mut check = |process: &str, attempt: &str, argument: &str, shows: &[i64]| {
        let found = owned.attempt(process, attempt, argument);
        if !shows.contains(&found) {
            wrong.push(format!("{kind:?} {process} {attempt} {argument}: {}, not {shows:?}", ended(found)));
        }
    };
    for attempt in CALLS.iter().filter(|attempt| !WITH_A_BROKER_MAY.contains(attempt)) {
        check(&target, attempt, "1", &[SIGSYS]);
    }
    check(&target, "unix-path", "/broker/nbd", &[DONE]);
    check(&target, "unix-path", &neighbour, &[ENOENT]);
    check(&target, "unix-path", &engine, &[ENOENT]);
    check(&target, "read", "/broker/clients", &[EACCES]);
    check(&target, "create", "/broker/x", NOT_WRITTEN);
    check(&target, "list", "/broker", &[EACCES]);
    // In its own network nobody listens. TCP it may ask for, and its namespace's rules send nothing (below).
    check(&target, "unix-abstract", "x", &[ECONNREFUSED]);
    // The boot services have no broker, and no use for such a socket.
    check(NETBOOT, "read", "/broker/nbd", &[ENOENT]);
    for socket in [&*own, &*neighbour] {
        check(NETBOOT, "read", socket, &[ENOENT]);
        check(NETBOOT, "unix-path", socket, &[SIGSYS]);
    }
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
    for process in [owned.target(), NETBOOT.to_owned()] {
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
