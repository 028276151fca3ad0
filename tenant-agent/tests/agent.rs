//! The agent on a host of its own: what it makes, who can reach what, and that nothing is left.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use support::{Host, UID_BASE, conformance, desired, proc_status, run};

/// A sandboxed process: it has no rights and sees nobody.
fn look(host: &Host, name: &str, program: &str) {
    let pid = host.pid(name);
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(exe.ends_with(program), "{}", exe.display());
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(proc_status(pid, set), "0000000000000000", "{name} {set}");
    }
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!((&*proc_status(pid, "Seccomp"), &*proc_status(pid, "Seccomp_filters")), ("2", "2"));
    let seen = std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().flatten();
    let seen: Vec<String> = seen.map(|entry| entry.file_name().into_string().unwrap()).collect();
    for hidden in ["etc", "var", "dev", "sys", "run", "home", "root", "bin"] {
        assert!(!seen.iter().any(|name| name == hidden), "{name} sees /{hidden}");
    }
    assert_eq!(proc_status(pid, "Groups"), "");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.is_empty(), "no environment");
}

#[test]
fn an_instance_has_a_fenced_target_and_leaves_nothing() {
    conformance::life(Host::new("life"), look);
}

#[test]
fn processes_outlive_the_agent_and_are_found_again_without_a_control_plane() {
    conformance::again(Host::new("again"));
}

#[test]
fn a_node_boots_by_dhcp_script_and_login() {
    conformance::boot(Host::new("boot"));
}

#[test]
fn what_is_wrong_with_one_instance_is_reported_and_the_other_serves() {
    conformance::fault(Host::new("fault"));
}

#[test]
fn twenty_four_instances_start_side_by_side_and_go_again() {
    conformance::many(Host::new("many"));
}

#[test]
fn the_agents_own_halves_have_the_rights_they_need_and_no_more() {
    let mut host = Host::new("halves");
    host.control_plane.want(desired(1, Vec::new()));
    host.agent_start();
    host.await_generation(1, 0);
    let pids = run("ip", &["netns", "pids", &host.namespace]);
    let agent: Vec<i32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let line = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().replace('\0', " ");
    let (helper, main): (Vec<i32>, Vec<i32>) =
        agent.into_iter().partition(|pid| line(*pid).contains(" helper "));
    assert_eq!((helper.len(), main.len()), (1, 1));
    assert_eq!(proc_status(main[0], "CapEff"), "0000000000000000");
    assert_eq!(proc_status(main[0], "NoNewPrivs"), "1");
    assert!(proc_status(main[0], "Uid").starts_with(&UID_BASE.to_string()));
    assert!(proc_status(helper[0], "Uid").starts_with("0 "));
    for family in ["-t", "-u"] {
        let listening = run("ip", &["netns", "exec", &host.namespace, "ss", "-Hln", family]);
        assert_eq!(listening.trim(), "", "the agent listens nowhere");
    }
}
