//! Takes down what a test run left that was killed before it could: deployments whose process is gone.
//!
//! Deliberately careful: only directories of the harness, only processes that were started from them, and nothing
//! that fails stops a test.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ceph::ceph_sweep;
use crate::host::{mounts_below, output, processes};

/// How long left processes get to end.
const END: Duration = Duration::from_secs(10);

/// Sweeps the directory of all deployments.
pub(crate) fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split_once('-').and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            eprintln!("taking down what an earlier test run left in {}", entry.path().display());
            remove(&entry.path(), &format!("bmi-test-{name}"));
        }
    }
}

fn remove(data: &Path, namespace: &str) {
    ceph_sweep(data);
    let below = format!("{}/", data.display());
    let left = || processes().into_iter().filter(|one| one.command.contains(&below));
    for process in left() {
        if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
    }
    let give_up = Instant::now() + END;
    while left().next().is_some() && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (program, config) = (data.join("bin/bmi-agent"), data.join("agent.toml"));
    if let (Some(program), Some(config)) = (program.to_str(), config.to_str()) {
        output("ip", &["netns", "exec", namespace, program, "--config", config, "stop"]);
    }
    for namespace in [namespace, &format!("{namespace}-dns")] {
        output("ip", &["netns", "del", namespace]);
    }
    for mount in mounts_below(data) {
        output("umount", &[&mount]);
    }
    if mounts_below(data).is_empty() {
        std::fs::remove_dir_all(data).ok();
    }
}
