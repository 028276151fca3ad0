//! The driver `container` on a host of its own, with Docker and with Podman: what every driver must do, what only
//! containers have, and what becomes of an engine that is away.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking and prints what it measured; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use bmi_agent_api::event::About;
use bmi_agent_api::status::ServiceStatus;
use bmi_tests::engine::Kind::{self, Docker, Podman};
use bmi_tests::engine::images;
use serde_json::json;
use support::{Host, conformance, desired, instance, mac, proc_status, reaches, until};

fn host(name: &str, kind: Kind) -> Host {
    Host::with_engine(name, kind, &images())
}

/// A container: its engine says that it may do nothing, and the kernel says the same.
fn look(host: &Host, name: &str, program: &str) {
    let pid = host.pid(name);
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe, std::path::Path::new("/").join(program));
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(proc_status(pid, set), "0000000000000000", "{name} {set}");
    }
    assert_eq!((&*proc_status(pid, "NoNewPrivs"), &*proc_status(pid, "Seccomp")), ("1", "2"));
    let seen = host.engine.as_ref().unwrap().inspect(&host.container(name));
    let config = &seen["HostConfig"];
    assert_eq!(config["NetworkMode"], "none");
    assert_eq!((&config["ReadonlyRootfs"], &config["Privileged"]), (&json!(true), &json!(false)));
    assert_eq!(config["RestartPolicy"]["Name"].as_str().unwrap_or("no"), "no");
    for limit in ["Memory", "PidsLimit", "CpuQuota", "CpuPeriod"] {
        assert!(config[limit].as_i64().unwrap_or_default() > 0, "{limit}: {config}");
    }
    let root: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Podman mounts /tmp, /var/tmp and /run in what is read-only, as memory that counts as the container's.
    for hidden in ["bin", "lib", "usr", "home", "root", "opt", "srv"] {
        assert!(!root.iter().any(|name| name == hidden), "{name} has /{hidden}: {root:?}");
    }
}

#[test]
fn docker_an_instance_has_a_fenced_target_and_leaves_nothing() {
    conformance::life(host("dl", Docker), look);
}

#[test]
fn podman_an_instance_has_a_fenced_target_and_leaves_nothing() {
    conformance::life(host("pl", Podman), look);
}

#[test]
fn docker_containers_outlive_the_agent_and_are_found_again_without_a_control_plane() {
    conformance::again(host("da", Docker));
}

#[test]
fn podman_containers_outlive_the_agent_and_are_found_again_without_a_control_plane() {
    conformance::again(host("pa", Podman));
}

#[test]
fn docker_a_node_boots_by_dhcp_script_and_login() {
    conformance::boot(host("db", Docker));
}

#[test]
fn podman_a_node_boots_by_dhcp_script_and_login() {
    conformance::boot(host("pb", Podman));
}

#[test]
fn docker_what_is_wrong_with_one_instance_is_reported_and_the_other_serves() {
    conformance::fault(host("df", Docker));
}

#[test]
fn podman_what_is_wrong_with_one_instance_is_reported_and_the_other_serves() {
    conformance::fault(host("pf", Podman));
}

#[test]
fn twenty_four_containers_start_side_by_side_and_go_again() {
    conformance::many(host("many", Kind::asked_for().unwrap_or(Docker)));
}

#[test]
fn a_stranger_with_our_label_is_removed_and_another_is_not() {
    for kind in Kind::each() {
        let mut host = host("stranger", kind);
        let wanted = instance(1, &host.volume("1.raw"));
        host.control_plane.want(desired(1, vec![wanted.clone()]));
        host.agent_start();
        host.await_target(wanted.id, &ServiceStatus::Listening);
        let engine = host.engine.as_ref().unwrap();
        let image = engine.inspect(&host.container(&wanted.id.to_string()))["Config"]["Image"].clone();
        // One as a crash in mid-start leaves it, one with a name that is none, and one that is another agent's.
        let gone = "0190163d-8694-739b-aea5-00000000ffff";
        for (name, agent, process) in [
            (&*host.container(gone), "lab/bmi0", gone),
            ("stranger", "lab/bmi0", "netboot"),
            ("theirs", "lab/bmi1", "netboot"),
        ] {
            let body = json!({
                "Image": image, "Cmd": ["--help"], "Labels": {"bmi.agent": agent, "bmi.process": process},
                "HostConfig": {"NetworkMode": "none"},
            });
            engine.ask("POST", &format!("/containers/create?name={name}"), Some(&body));
        }
        host.agent_kill();
        host.agent_start();
        let names = || {
            let all = host.engine.as_ref().unwrap().containers();
            let mut names: Vec<String> = all
                .iter()
                .map(|it| it["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned())
                .collect();
            names.sort();
            names
        };
        let expected = {
            let mut all =
                vec![host.container("netboot"), host.container(&wanted.id.to_string()), "theirs".to_owned()];
            all.sort();
            all
        };
        until("only ours and another agent's are left", || (names() == expected).then_some(()));
        host.await_target(wanted.id, &ServiceStatus::Listening);
    }
}

#[test]
fn a_name_that_is_taken_and_an_image_that_has_gone_meanwhile_keep_nothing_from_starting() {
    for kind in Kind::each() {
        let mut host = host("meanwhile", kind);
        let [first, second] = [1, 2].map(|number| instance(number, &host.volume(&format!("{number}.raw"))));
        host.control_plane.want(desired(1, vec![first.clone()]));
        host.agent_start();
        host.await_target(first.id, &ServiceStatus::Listening);
        let engine = || host.engine.as_ref().unwrap();
        let image =
            engine().inspect(&host.container(&first.id.to_string()))["Image"].as_str().unwrap().to_owned();

        // Somebody has a container of the name that the second will have.
        let taken = host.container(&second.id.to_string());
        let body = json!({"Image": image, "Cmd": ["--help"], "HostConfig": {"NetworkMode": "none"}});
        engine().ask("POST", &format!("/containers/create?name={taken}"), Some(&body));
        host.control_plane.want(desired(2, vec![first.clone(), second.clone()]));
        host.await_target(second.id, &ServiceStatus::Listening);

        // Somebody removes the image, which the agent knows to be there.
        host.control_plane.want(desired(3, Vec::new()));
        host.await_generation(3, 0);
        engine().ask("DELETE", &format!("/images/{image}?force=true"), None);
        host.control_plane.want(desired(4, vec![first.clone()]));
        host.await_target(first.id, &ServiceStatus::Listening);
    }
}

#[test]
fn an_engine_that_is_away_is_told_of_and_what_runs_is_served() {
    for kind in Kind::each() {
        let mut host = host("away", kind);
        let first = instance(1, &host.volume("1.raw"));
        host.control_plane.want(desired(1, vec![first.clone()]));
        host.agent_start_logged();
        host.await_target(first.id, &ServiceStatus::Listening);
        let node = host.node(1, mac(1));
        support::address_take(&node, "10.20.0.71");
        let pid = host.pid(&first.id.to_string());

        host.engine.as_mut().unwrap().stop();
        let second = instance(2, &host.volume("2.raw"));
        host.control_plane.want(desired(2, vec![first.clone(), second.clone()]));
        let reason = until("the engine's absence is told", || {
            let status = host.control_plane.status()?;
            let found = status.instances.into_iter().find(|found| found.id == second.id)?;
            if let ServiceStatus::Failed { reason } = found.target { Some(reason) } else { None }
        });
        println!("{reason}");
        assert!(reason.contains("does not answer"), "{reason}");
        assert!(reaches(&node, "10.20.0.9", 3260), "the first is served meanwhile");
        host.await_fault(About::Host, "does not answer");

        host.engine.as_mut().unwrap().again();
        host.await_target(second.id, &ServiceStatus::Listening);
        assert_eq!(host.pid(&first.id.to_string()), pid, "not started again");
        host.await_mended(About::Host);
        host.control_plane.want(desired(3, Vec::new()));
        host.await_generation(3, 0);
    }
}

#[test]
fn an_engine_that_hangs_is_told_of_and_holds_up_nothing_else() {
    for kind in Kind::each() {
        let mut host = host("hung", kind);
        let first = instance(1, &host.volume("1.raw"));
        host.control_plane.want(desired(1, vec![first.clone()]));
        host.agent_start_logged();
        host.await_target(first.id, &ServiceStatus::Listening);
        let node = host.node(1, mac(1));
        support::address_take(&node, "10.20.0.71");
        host.engine.as_ref().unwrap().hang(true);
        host.await_fault(About::Host, "is it hung?");
        assert!(reaches(&node, "10.20.0.9", 3260), "the first is served meanwhile");
        // The rules are looked after too.
        support::run("ip", &["netns", "exec", &host.namespace, "nft", "flush", "ruleset"]);
        host.await_restored("bmi_bmi0");
        host.engine.as_ref().unwrap().hang(false);
        host.await_mended(About::Host);
        host.control_plane.want(desired(2, Vec::new()));
        host.await_generation(2, 0);
    }
}

#[test]
fn an_image_that_is_another_is_not_run() {
    let mut host = host("image", Docker);
    let wanted = instance(1, &host.volume("1.raw"));
    // The file is an image, and not the one that is meant.
    let text = std::fs::read_to_string(host.config()).unwrap();
    let other = |line: &str| match line.split_once("_image = ") {
        Some((name, _)) => format!("{name}_image = \"sha256:{}\"", "0".repeat(64)),
        None => line.to_owned(),
    };
    std::fs::write(host.config(), text.lines().map(other).collect::<Vec<_>>().join("\n")).unwrap();
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    let reason = until("it is told", || {
        let status = host.control_plane.status()?;
        let found = status.instances.into_iter().find(|found| found.id == wanted.id)?;
        if let ServiceStatus::Failed { reason } = found.target { Some(reason) } else { None }
    });
    assert!(reason.contains("is not the image sha256:"), "{reason}");
    assert_eq!(host.engine.as_ref().unwrap().containers().len(), 0);
}

#[test]
fn check_tells_what_the_host_lacks_for_containers() {
    for kind in Kind::each() {
        let mut host = host("check", kind);
        let check = |host: &Host| {
            let config = host.config();
            let words =
                ["netns", "exec", &host.namespace, env!("CARGO_BIN_EXE_bmi-agent"), "check", "--config"];
            let words = [&words[..], &[config.to_str().unwrap()]].concat();
            let output = support::output("ip", &words);
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        };
        for protocol in ["iptables", "ip6tables", "arptables"] {
            let off = format!(
                "[ ! -e /proc/sys/net/bridge ] || echo 0 >/proc/sys/net/bridge/bridge-nf-call-{protocol}"
            );
            support::run("ip", &["netns", "exec", &host.namespace, "sh", "-c", &off]);
        }
        let (fit, said) = check(&host);
        assert!(fit, "{kind:?}: {said}");

        // What Docker does to a host unless it is told not to.
        let namespace = host.namespace.clone();
        support::run("ip", &["-n", &namespace, "link", "add", "docker0", "type", "bridge"]);
        support::run("ip", &["netns", "exec", &namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        let docker = "add table ip nat; add chain ip nat DOCKER";
        support::run("ip", &["netns", "exec", &namespace, "nft", docker]);
        host.engine.as_mut().unwrap().stop();
        let (fit, said) = check(&host);
        assert!(!fit);
        for part in ["ip_forward", "docker0", "--iptables=false", "does not answer"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        host.engine.as_mut().unwrap().again();
        let text = std::fs::read_to_string(host.config()).unwrap();
        std::fs::write(host.config(), text.replace("image_dir", "# image_dir")).unwrap();
        assert!(check(&host).1.contains("run infra/containers/build"), "{}", check(&host).1);
    }
}

/// An engine of long ago: it says so, whatever it is asked.
fn old_engine(socket: &std::path::Path) {
    use std::io::{Read, Write};
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let body = r#"{"Version":"17.06.0","ApiVersion":"1.30","MinAPIVersion":"1.12","Components":[]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn an_engine_that_is_too_old_is_told_of_and_nothing_is_half_made() {
    let mut host = host("old", Docker);
    let socket = host.state.path().join("old.sock");
    old_engine(&socket);
    let good = std::fs::read_to_string(host.config()).unwrap();
    let theirs = host.engine.as_ref().unwrap().socket().display().to_string();
    std::fs::write(host.config(), good.replace(&theirs, &socket.display().to_string())).unwrap();
    let wanted = instance(1, &host.volume("1.raw"));
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    let reason = until("it is told", || {
        let status = host.control_plane.status()?;
        let found = status.instances.into_iter().find(|found| found.id == wanted.id)?;
        if let ServiceStatus::Failed { reason } = found.target { Some(reason) } else { None }
    });
    assert!(reason.contains("1.30") && reason.contains("1.41 is needed"), "{reason}");
    assert!(!host.links().iter().any(|name| name.starts_with("bt")), "{:?}", host.links());
    // With an engine that can, it is as if nothing had been.
    host.agent_kill();
    std::fs::write(host.config(), good).unwrap();
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
}
