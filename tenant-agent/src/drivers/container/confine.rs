//! What a container may be and see: a value, made of nothing but arguments.
//!
//! Invariants, each tested here and by code that runs in one: no network but what the agent moves in; a root that nobody
//! writes; no capability and none to be had; a user of its own; only the system calls of its profile; bounded memory,
//! processes, processor time, open files, written files and log; started again by nobody but the agent.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::super::firewall::TRANSFER_PORTS;
use super::super::process::launcher::{MEMORY, OPEN_FILES, SETTINGS, TASKS};
use super::limits;
use crate::config::ImageDigest;

/// Labels by which our containers are found again: whose, and which process.
pub const AGENT_LABEL: &str = "bmi.agent";
pub const PROCESS_LABEL: &str = "bmi.process";

/// Where a container finds its configuration.
pub const CONFIG_MOUNT: &str = "/config";

/// Processor time it may use in a tenth of a second, in microseconds: two processors. Not as a number of processors, since Docker
/// refuses more of them than the host has.
pub const PERIOD: i64 = 100_000;
pub const QUOTA: i64 = 200_000;

/// What the engine keeps of what it prints.
const LOG_SIZE: &str = "1m";
const LOG_FILES: &str = "2";

/// A directory or file that is shown to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it is on the host.
    pub from: PathBuf,
    /// Where the container sees it.
    pub at: String,
    /// Whether it may be written.
    pub write: bool,
}

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Of what.
    pub image: ImageDigest,
    /// Its program and what it is told.
    pub command: Vec<String>,
    /// Its user; the group has the same number.
    pub uid: u32,
    /// All that it sees of the host.
    pub shown: Vec<Shown>,
    /// The largest file it may write, in bytes.
    pub file_size: u64,
    /// Its system calls as the engine wants them: the filter, or the name of a file with it.
    pub seccomp: String,
    /// Whose it is.
    pub agent: String,
    /// Which process of it.
    pub process: String,
}

fn limit(name: &str, most: u64) -> ResourcesUlimits {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) }
}

fn mount(shown: &Shown) -> Mount {
    Mount {
        target: Some(shown.at.clone()),
        source: Some(shown.from.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(!shown.write),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Settings of its network namespace. Those that this kernel does not have are not asked for.
fn settings() -> HashMap<String, String> {
    let (first, last) = TRANSFER_PORTS;
    let range = ("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}"));
    let all = SETTINGS.iter().map(|(path, value)| (*path, (*value).to_owned())).chain([range]);
    let there = all.filter(|(path, _)| Path::new(path).exists());
    there.map(|(path, value)| (path.trim_start_matches("/proc/sys/").replace('/', "."), value)).collect()
}

impl Container {
    /// As the engine is asked for it.
    #[must_use]
    pub fn body(&self) -> ContainerCreateBody {
        let memory = i64::try_from(MEMORY).unwrap_or(i64::MAX);
        let log = [("max-size", LOG_SIZE), ("max-file", LOG_FILES)];
        let host = HostConfig {
            network_mode: Some("none".to_owned()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned(), format!("seccomp={}", self.seccomp)]),
            privileged: Some(false),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            // /dev/shm cannot be left out everywhere; a page of it does no harm.
            shm_size: Some(4096),
            memory: Some(memory),
            // As much as memory: no swap.
            memory_swap: Some(memory),
            cpu_period: Some(PERIOD),
            cpu_quota: Some(QUOTA),
            pids_limit: i64::try_from(TASKS).ok(),
            ulimits: Some(vec![
                limit("nofile", OPEN_FILES),
                limit("nproc", TASKS),
                limit("fsize", self.file_size),
                limit("core", 0),
            ]),
            sysctls: Some(settings()),
            mounts: Some(self.shown.iter().map(mount).collect()),
            // The host's own would be shown to it otherwise.
            dns: Some(vec!["127.0.0.1".to_owned()]),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(log.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            }),
            // An engine would start it again with an empty network.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        };
        let labels = [(AGENT_LABEL, &self.agent), (PROCESS_LABEL, &self.process)];
        ContainerCreateBody {
            image: Some(self.image.to_string()),
            entrypoint: Some(self.command.iter().take(1).cloned().collect()),
            cmd: Some(self.command.iter().skip(1).cloned().collect()),
            hostname: Some("bmi".to_owned()),
            user: Some(format!("{0}:{0}", self.uid)),
            working_dir: Some(CONFIG_MOUNT.to_owned()),
            env: Some(Vec::new()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.clone())).into()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

/// Whether the kernel shows a process as what was asked for: engines are known to leave out what they do not know.
///
/// # Errors
/// What it is that it should not be.
pub fn confined(pid: i32, uid: u32) -> Result<(), String> {
    let read =
        |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).map_err(|error| error.to_string());
    let status = read("status")?;
    let mut faults = status_faults(&status, uid);
    let mounts = read("mountinfo")?;
    if !root_is_read_only(&mounts) {
        faults.push("its root can be written".to_owned());
    }
    for namespace in ["net", "pid", "mnt", "ipc", "uts"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).ok();
        if of(&pid.to_string()).is_none_or(|its| Some(its) == of("self")) {
            faults.push(format!("it has no {namespace} namespace of its own"));
        }
    }
    faults.extend(limits::faults(pid));
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

fn status_faults(status: &str, uid: u32) -> Vec<String> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    let mut faults = Vec::new();
    for name in ["Uid", "Gid"] {
        let own = field(name).split_whitespace().map(|id| id.parse::<u32>().ok()).collect::<BTreeSet<_>>();
        if own != BTreeSet::from([Some(uid)]) {
            faults.push(format!("{name} is {} and not {uid}", field(name)));
        }
    }
    if field("Groups").split_whitespace().any(|group| group.parse() != Ok(uid)) {
        faults.push(format!("it has the groups {}", field("Groups")));
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        if field(name).is_empty() || field(name).bytes().any(|digit| digit != b'0') {
            faults.push(format!("{name} is {}", field(name)));
        }
    }
    for (name, wanted) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        if field(name) != wanted {
            faults.push(format!("{name} is `{}` and not {wanted}", field(name)));
        }
    }
    faults
}

/// Field 5 of a line is where it is mounted, field 6 how.
fn root_is_read_only(mounts: &str) -> bool {
    let mut root = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(4);
        (fields.next()? == "/").then(|| fields.next()).flatten()
    });
    root.next_back().is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t7 \nNoNewPrivs:\t1\nSeccomp:\t2\n\
        CapInh:\t0000\nCapPrm:\t0000\nCapEff:\t0000\nCapBnd:\t0000\nCapAmb:\t0000\n";

    #[test]
    fn whatever_is_not_confined_is_named() {
        assert!(status_faults(GOOD, 7).is_empty());
        for (from, to) in [
            ("Uid:\t7\t7", "Uid:\t7\t0"),
            ("Gid:\t7", "Gid:\t8"),
            ("Groups:\t7 ", "Groups:\t7 0"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("CapBnd:\t0000", "CapBnd:\t0001"),
            ("CapEff:\t0000\n", ""),
        ] {
            assert_eq!(status_faults(&GOOD.replace(from, to), 7).len(), 1, "{to}");
        }
        assert_eq!(status_faults("", 7).len(), 9);
    }

    #[test]
    fn the_last_mount_on_the_root_counts() {
        assert!(root_is_read_only("1 0 0:1 / / ro,relatime - overlay o rw\n2 1 0:2 / /dev rw - tmpfs t rw"));
        assert!(!root_is_read_only("1 0 0:1 / / ro - overlay o rw\n2 1 0:2 / / rw - tmpfs t ro"));
        assert!(!root_is_read_only(""));
    }

    #[test]
    fn nothing_of_the_host_is_shown_but_what_is_named_and_only_what_is_said_can_be_written() {
        let shown = |write| Shown { from: "/a".into(), at: "/b".to_owned(), write };
        let container = Container {
            image: format!("sha256:{}", "0".repeat(64)).try_into().unwrap(),
            command: vec!["/p".to_owned(), "x".to_owned()],
            uid: 7,
            shown: vec![shown(false), shown(true)],
            file_size: 1,
            seccomp: "{}".to_owned(),
            agent: "a".to_owned(),
            process: "netboot".to_owned(),
        };
        let host = container.body().host_config.unwrap();
        let read_only: Vec<_> = host.mounts.unwrap().into_iter().map(|mount| mount.read_only).collect();
        assert_eq!(read_only, [Some(true), Some(false)]);
        assert_eq!((host.network_mode.as_deref(), host.binds, host.devices), (Some("none"), None, None));
    }
}
