//! What the kernel limits a process to, by its control groups (cgroups(7)): those of version 1 where they are mounted, or else
//! version 2. Engines only warn when they could not set a limit.

use std::fs;
use std::path::Path;

use super::super::process::launcher::{MEMORY, TASKS};
use super::confine::{PERIOD, QUOTA};

/// Where control groups are mounted.
const ROOT: &str = "sys/fs/cgroup";

/// What a process is not limited to as it should be.
#[must_use]
pub fn faults(pid: i32) -> Vec<String> {
    let groups = match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(groups) => groups,
        Err(error) => return vec![format!("its control groups cannot be read: {error}")],
    };
    let here = Path::new("/").join(ROOT);
    if ["cgroup.controllers", "memory"].iter().any(|file| here.join(file).exists()) {
        return group_faults(&here, &groups);
    }
    // `ip netns exec` hides them. The container sees its own, as the root of what it sees, and cannot mount anything there.
    let inside = |line: &str| Some(format!("{}:/\n", line.rsplit_once(':')?.0));
    let groups: String = groups.lines().filter_map(inside).collect();
    group_faults(&Path::new(&format!("/proc/{pid}/root")).join(ROOT), &groups)
}

/// The value of a file of a process's group: of a controller's own hierarchy (`one`), or of the common one (`two`); `None`
/// where that has no such file.
fn value(
    root: &Path,
    groups: &str,
    controller: &str,
    one: Option<&str>,
    two: Option<&str>,
) -> Option<String> {
    let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let own = lines().find(|(names, _)| names.split(',').any(|name| name == controller));
    let path = match own {
        Some((_, path)) => root.join(controller).join(path.trim_start_matches('/')).join(one?),
        None => {
            let (_, path) = lines().find(|(names, _)| names.is_empty())?;
            root.join(path.trim_start_matches('/')).join(two?)
        }
    };
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn group_faults(root: &Path, groups: &str) -> Vec<String> {
    let number = |text: Option<String>| text?.parse::<u64>().ok();
    let of = |controller, one, two| value(root, groups, controller, one, two);
    let mut faults = Vec::new();
    let mut needs = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let memory = number(of("memory", Some("memory.limit_in_bytes"), Some("memory.max")));
    needs(memory.is_some_and(|most| most <= MEMORY), "its memory is not limited");
    // A kernel without swap, or without a limit for it, has no such file. Version 1 counts memory and swap together.
    let swap = match (
        of("memory", Some("memory.memsw.limit_in_bytes"), None),
        of("memory", None, Some("memory.swap.max")),
    ) {
        (Some(both), _) => both.parse::<u64>().is_ok_and(|most| most <= MEMORY),
        (None, Some(swap)) => swap == "0",
        (None, None) => true,
    };
    needs(swap, "it may use swap");
    let tasks = number(of("pids", Some("pids.max"), Some("pids.max")));
    needs(tasks.is_some_and(|most| most <= TASKS), "its processes are not limited");
    let quota = match of("cpu", None, Some("cpu.max")) {
        Some(both) => {
            both.split_once(' ').and_then(|(quota, period)| Some((quota.parse().ok()?, period.parse().ok()?)))
        }
        None => {
            let of = |file| number(of("cpu", Some(file), None));
            of("cpu.cfs_quota_us").zip(of("cpu.cfs_period_us"))
        }
    };
    let (most, each) = (QUOTA.unsigned_abs(), PERIOD.unsigned_abs());
    let within =
        |(quota, period): (u64, u64)| period > 0 && quota.saturating_mul(each) <= most.saturating_mul(period);
    needs(quota.is_some_and(within), "its processor time is not limited");
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control groups with these files.
    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    const ONE: &str = "9:name=systemd:/\n8:pids:/p\n4:memory:/m/x\n2:cpu,cpuacct:/c\n0::/";
    const ONE_FILES: [(&str, &str); 5] = [
        ("pids/p/pids.max", "64"),
        ("memory/m/x/memory.limit_in_bytes", "268435456"),
        ("memory/m/x/memory.memsw.limit_in_bytes", "268435456"),
        ("cpu/c/cpu.cfs_quota_us", "200000"),
        ("cpu/c/cpu.cfs_period_us", "100000"),
    ];
    const TWO: &str = "0::/system.slice/x.scope";
    const TWO_FILES: [(&str, &str); 4] = [
        ("system.slice/x.scope/pids.max", "64"),
        ("system.slice/x.scope/memory.max", "268435456"),
        ("system.slice/x.scope/memory.swap.max", "0"),
        ("system.slice/x.scope/cpu.max", "200000 100000"),
    ];

    #[test]
    fn whatever_is_not_limited_is_named() {
        for (text, files) in [(ONE, &ONE_FILES[..]), (TWO, &TWO_FILES)] {
            assert_eq!(group_faults(groups(files).path(), text), Vec::<String>::new());
            assert_eq!(
                group_faults(groups(&[]).path(), text).len(),
                3,
                "without swap's, which need not be there"
            );
            for (at, (path, _)) in
                files.iter().enumerate().filter(|(_, (path, _))| !path.ends_with("period_us"))
            {
                let mut files = files.to_vec();
                let unlimited = match *path {
                    path if path.ends_with("cpu.max") => "max 100000",
                    path if path.ends_with("quota_us") => "-1",
                    path if path.starts_with("memory/") => "9223372036854771712",
                    _ => "max",
                };
                files[at].1 = unlimited;
                assert_eq!(group_faults(groups(&files).path(), text).len(), 1, "{path}");
            }
        }
        assert_eq!(group_faults(groups(&TWO_FILES).path(), "").len(), 3);
    }
}
