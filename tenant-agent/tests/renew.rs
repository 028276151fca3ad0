//! `bmi-agent renew`: an upgrade of the programs of what runs, one at a time.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bmi_agent_api::status::ServiceStatus;
use bmi_tests::upgrade;
use support::{Host, desired, instance, output};

/// A copy of a program where a test may replace it.
fn installed(host: &Host, name: &str) -> PathBuf {
    let directory = host.state.path().join("programs");
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.join(name);
    fs::copy(bmi_tests::Deployment::built(name), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn renew(host: &Host, more: &[&str]) -> (Option<i32>, String) {
    let agent = bmi_tests::Deployment::built("bmi-agent");
    let (agent, config) = (agent.to_str().unwrap().to_owned(), host.config());
    let words = ["netns", "exec", &host.namespace, &agent, "--config", config.to_str().unwrap(), "renew"];
    let done = output("ip", &[&words[..], more].concat());
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_runs_an_older_program_is_renewed_and_what_does_not_is_left_alone() {
    let mut host = Host::without_engine("renew");
    let (target, netboot) = (installed(&host, "bmi-target"), installed(&host, "bmi-netboot"));
    host.configure(&format!(
        "target_program = \"{}\"\nnetboot_program = \"{}\"\n",
        target.display(),
        netboot.display()
    ));
    let all: Vec<_> =
        (1..=2).map(|number| instance(number, &host.volume(&format!("{number}.raw")))).collect();
    host.control_plane.want(desired(1, all.clone()));
    host.agent_start();
    for one in &all {
        host.await_target(one.id, &ServiceStatus::Listening);
    }
    let names: Vec<String> = all.iter().map(|one| one.id.to_string()).collect();
    let pids = |host: &Host| [host.pid("netboot"), host.pid(&names[0]), host.pid(&names[1])];
    let before = pids(&host);
    let (code, said) = renew(&host, &[]);
    assert!(code == Some(0) && said.contains("everything runs what is installed"), "{said}");
    assert_eq!(pids(&host), before);

    // A program that was only installed again is no other one.
    fs::copy(&netboot, netboot.with_extension("same")).unwrap();
    fs::rename(netboot.with_extension("same"), &netboot).unwrap();
    upgrade(&target);
    let (code, said) = renew(&host, &["--dry-run"]);
    assert!(
        code == Some(0) && !said.contains("netboot") && names.iter().all(|name| said.contains(name)),
        "{said}"
    );
    assert_eq!(pids(&host), before, "only said");

    // Without an agent nothing would come back.
    host.agent_kill();
    let (code, said) = renew(&host, &[]);
    assert!(code == Some(1) && said.contains("does not run"), "{said}");
    assert_eq!(pids(&host), before);
    host.agent_start();
    for one in &all {
        host.await_target(one.id, &ServiceStatus::Listening);
    }

    let (code, said) = renew(&host, &[]);
    assert!(code == Some(0) && said.matches("renewed in").count() == 2, "{said}");
    let after = pids(&host);
    assert_eq!(after[0], before[0], "boot services are current");
    assert!(after[1] != before[1] && after[2] != before[2], "{before:?} {after:?}");
    for (pid, one) in after[1..].iter().zip(&all) {
        assert_eq!(fs::read(format!("/proc/{pid}/exe")).unwrap(), fs::read(&target).unwrap());
        host.await_target(one.id, &ServiceStatus::Listening);
    }
    let (code, said) = renew(&host, &["--all"]);
    assert!(code == Some(0) && said.matches("renewed in").count() == 3, "{said}");
    let renewed = pids(&host);
    assert!(renewed.iter().zip(&after).all(|(now, then)| now != then));

    // An agent that has read another configuration starts what that says: that is no success.
    let elsewhere = target.with_file_name("elsewhere");
    fs::copy(&target, &elsewhere).unwrap();
    upgrade(&elsewhere);
    let text = fs::read_to_string(host.config()).unwrap();
    let other = text.replace(target.to_str().unwrap(), elsewhere.to_str().unwrap());
    fs::write(host.config(), other).unwrap();
    let (code, said) = renew(&host, &[]);
    assert!(code == Some(1) && said.contains("restart the agent"), "{said}");
    assert_eq!(host.pid(&names[1]), renewed[2], "what comes after it was not touched");
    fs::write(host.config(), text).unwrap();
}
