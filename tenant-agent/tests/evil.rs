//! A target that was taken over, and an agent that asks for what must not be: what the host allows them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking and prints what it saw; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi_agent_api::status::ServiceStatus;
use support::{Host, desired, instance, proc_status, processes, until};

/// Longer than the stand-in waits between two writes, and than the helper's driver between two looks.
const A_WHILE: Duration = Duration::from_millis(1500);

fn evil_target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_bmi-agent")).with_file_name("examples").join("evil_target");
    assert!(program.exists(), "build it first: cargo build -p bmi-agent --examples");
    program
}

#[test]
fn a_target_that_was_taken_over_leaves_nobody_behind() {
    let mut host = Host::new("evil");
    // What is held here is held without the sandbox, too: it has tests of its own.
    host.target_program(&evil_target(), &["root", "landlock", "seccomp"]);
    let volume = host.volume("1.raw");
    let wanted = instance(1, &volume);
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let name = wanted.id.to_string();
    let uid = proc_status(host.pid(&name), "Uid").split(' ').next().unwrap().parse().unwrap();
    let written = || std::fs::read(&volume).unwrap().starts_with(b"written by the grandchild");
    until("the grandchild writes", || written().then_some(()));
    assert!(processes(uid).len() >= 2, "the target and its grandchild");

    // It is found again by the next helper as before.
    host.agent_kill();
    let before = host.pid(&name);
    host.agent_start();
    std::thread::sleep(A_WHILE);
    assert_eq!(host.pid(&name), before);

    host.control_plane.want(desired(2, Vec::new()));
    host.await_generation(2, 0);
    assert_eq!(processes(uid), Vec::<i32>::new(), "nobody has the user id any more");
    std::fs::write(&volume, [0x5a; 4096]).unwrap();
    std::thread::sleep(A_WHILE);
    assert!(!written(), "nobody writes the volume");
}

#[test]
fn a_target_that_was_taken_over_does_not_fill_the_disk_and_sees_nobody() {
    let mut host = Host::new("full");
    // What is held here is held without the sandbox, too: it has tests of its own.
    host.target_program(&evil_target(), &["root", "landlock", "seccomp"]);
    let volume = host.volume("1.raw");
    let wanted = instance(1, &volume);
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    let directory = host.directory(&wanted.id.to_string());
    let log = until("its attempts are in the log", || {
        let log = std::fs::read_to_string(directory.join("log")).ok()?;
        log.contains("processes seen").then_some(log)
    });
    println!("{log}");
    let attempts: Vec<&str> = log.lines().filter(|line| !line.starts_with("processes seen")).collect();
    assert!(attempts.len() >= 8, "{log}");
    for attempt in attempts {
        assert!(!attempt.ends_with(": done"), "{log}");
    }
    assert!(log.contains("processes seen: [1]"), "{log}");
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 1024 * 1024);
    assert!(std::fs::metadata(&volume).unwrap().blocks() <= 2 * 1024 + 64);
}

#[test]
fn a_target_that_does_what_no_honest_one_does_is_ended_and_the_reason_is_told() {
    let mut host = Host::new("sigsys");
    host.target_program(&evil_target(), &[]);
    let volume = host.volume("1.raw");
    let wanted = instance(1, &volume);
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    let reason = until("its end is reported", || {
        let status = host.control_plane.status()?;
        let found = status.instances.into_iter().find(|found| found.id == wanted.id)?;
        if let ServiceStatus::Failed { reason } = found.target { Some(reason) } else { None }
    });
    println!("{reason}");
    assert!(reason.contains("signal SIGSYS") && reason.contains("seccomp"), "{reason}");
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 1024 * 1024);
}

#[test]
fn a_barrier_that_is_left_out_is_told_by_check() {
    let host = Host::new("left-out");
    let check = || {
        let config = host.config();
        let words = [&*host.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "check", "--config"];
        let words = [&["netns", "exec"][..], &words, &[config.to_str().unwrap()]].concat();
        String::from_utf8(support::output("ip", &words).stdout).unwrap()
    };
    assert!(!check().contains("sandbox_without"), "{}", check());
    host.target_program(&evil_target(), &["seccomp"]);
    assert!(check().contains("the barrier Seccomp is left out"), "{}", check());
}

#[test]
fn a_volume_has_one_target() {
    let mut host = Host::new("twice");
    let volume = host.volume("1.raw");
    let both = [instance(1, &volume), instance(2, &volume)];
    host.control_plane.want(desired(1, both.to_vec()));
    host.agent_start();
    let (failed, reason) = until("one of them is refused", || {
        let status = host.control_plane.status()?;
        status.instances.into_iter().find_map(|found| match found.target {
            ServiceStatus::Failed { reason } => Some((found.id, reason)),
            _ => None,
        })
    });
    assert!(reason.contains("1.raw is in use by"), "{reason}");
    let other = both.iter().find(|instance| instance.id != failed).unwrap();
    host.await_target(other.id, &ServiceStatus::Listening);

    // When the one that has it goes, the other gets it.
    let waiting = both.iter().find(|instance| instance.id == failed).unwrap();
    host.control_plane.want(desired(2, vec![waiting.clone()]));
    host.await_target(waiting.id, &ServiceStatus::Listening);
}
