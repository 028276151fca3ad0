//! Commands, waits, and what the kernel says of processes, mounts and files.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process gets to end by itself.
const END: Duration = Duration::from_secs(15);
/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program.
pub fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
    let program = program.as_ref();
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    ran.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()))
}

/// Runs a program that must succeed, and gives what it printed.
pub fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = output(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {} {said}", program.display(), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command that ends with the thread that starts it, so that a test that is killed leaves no server behind.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// Makes a network namespace in which the machine's own rules do not drop what passes a bridge.
pub(crate) fn namespace_make(name: &str) {
    run("ip", &["netns", "add", name]);
    run("ip", &["-n", name, "link", "set", "lo", "up"]);
    let off = "for f in iptables ip6tables arptables; do f=/proc/sys/net/bridge/bridge-nf-call-$f; \
               [ ! -e $f ] || echo 0 >$f; done";
    run("ip", &["netns", "exec", name, "sh", "-c", off]);
}

/// Waits until something holds, and gives it.
pub fn until<T>(what: &str, patience: Duration, mut holds: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}: not within {patience:?}");
        std::thread::sleep(LOOK);
    }
}

/// Asks a process that the test started to end, and makes it when it does not. Gives whether it ended by itself.
pub(crate) fn end(child: &mut Child) -> bool {
    let by_itself = descendants_end(child, Signal::TERM);
    if !by_itself {
        child.kill().ok();
    }
    child.wait().ok();
    by_itself
}

/// Sends a signal to a process that the test started and waits for its end. Gives whether it ended in time.
pub fn descendants_end(child: &mut Child, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(i32::try_from(child.id()).unwrap()) else { return true };
    if matches!(child.try_wait(), Ok(Some(_))) {
        return true;
    }
    kill_process(pid, signal).ok();
    let give_up = Instant::now() + END;
    while Instant::now() < give_up {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// SHA-256 of a file, as coreutils says.
#[must_use]
pub fn sha256(path: &Path) -> String {
    run("sha256sum", &[path.to_str().unwrap()]).split_whitespace().next().unwrap().to_owned()
}

/// Notes that something could not be tested on this machine, where `infra/test` counts it and shows it.
pub fn skip(name: &str, reason: &str) {
    let line = format!("{name}: {reason}\n");
    match std::env::var_os("BMI_SKIPPED") {
        Some(path) => {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
        None => eprint!("SKIPPED {line}"),
    }
}

/// Installs the next release of a program: another file by the same name, which does the same.
pub fn upgrade(program: &Path) {
    let next = program.with_extension("next");
    std::fs::copy(program, &next).unwrap();
    // What follows an ELF file's sections is nobody's.
    let mut file = std::fs::OpenOptions::new().append(true).open(&next).unwrap();
    std::io::Write::write_all(&mut file, b"next").unwrap();
    std::fs::rename(&next, program).unwrap();
}

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// Its command line, with spaces.
    pub command: String,
    /// Its environment, when it can be read.
    pub environment: String,
}

/// Every process but threads of the kernel.
#[must_use]
pub fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let text = |name: &str| {
            let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let Ok(metadata) = entry.metadata() else { continue };
        let command = text("cmdline");
        let status = text("status");
        let real = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        if !command.is_empty() {
            found.push(Process {
                pid,
                uid: real.unwrap_or(metadata.uid()),
                command,
                environment: text("environ"),
            });
        }
    }
    found
}

/// What is mounted below a directory.
#[must_use]
pub fn mounts_below(directory: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let point = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
    mounts.lines().map(point).filter(|point| Path::new(point).starts_with(directory)).collect()
}

/// Every file below a directory with its mode and owner, by relative path.
#[must_use]
pub fn tree(root: &Path) -> BTreeMap<String, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            found.insert(name, (metadata.permissions().mode() & 0o7777, metadata.uid()));
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}
