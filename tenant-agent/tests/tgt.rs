//! The driver `tgt` with a stock tgtd: what every driver must do, and what only this one has.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use bmi_agent_api::desired::{Backing, CephAccess, DesiredLun};
use bmi_agent_api::event::{EventSource, TargetEvent};
use bmi_agent_api::status::ServiceStatus;
use bmi_types::{BootNumber, BootUser, CephKey, boot_secret};
use support::{
    Host, address_take, conformance, desired, dhcp, fetch, instance, login, mac, output, proc_status,
    processes, reaches, run, script, until,
};

fn host(name: &str) -> Host {
    let mut host = Host::without_engine(name);
    host.configure("driver = \"tgt\"\n");
    host
}

/// tgtd in the place of our target: no rights, its own user, and it sees nobody. Boot services are as ever.
fn look(host: &Host, name: &str, program: &str) {
    let pid = host.pid(name);
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let stock = program == "bmi-target";
    assert!(exe.ends_with(if stock { "tgtd" } else { program }), "{}", exe.display());
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(proc_status(pid, set), "0000000000000000", "{name} {set}");
    }
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!(proc_status(pid, "Groups"), "");
    let seen = std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().flatten();
    let seen: Vec<String> = seen.map(|entry| entry.file_name().into_string().unwrap()).collect();
    for hidden in ["etc", "var", "dev", "sys", "run", "home", "root", "bin"] {
        assert!(!seen.iter().any(|name| name == hidden), "{name} sees /{hidden}");
    }
    if stock {
        // It was given no secret with its start, and can make no more files.
        let user: u32 = proc_status(pid, "Uid").split(' ').next().unwrap().parse().unwrap();
        let control = host.directory(name).join("control");
        let group = format!("--regid={user}");
        let touch = [&format!("--reuid={user}"), &group, "--clear-groups", "touch"];
        let file = control.join("x");
        assert!(!output("setpriv", &[&touch[..], &[file.to_str().unwrap()]].concat()).status.success());
    }
}

#[test]
fn tgt_an_instance_has_a_fenced_target_and_leaves_nothing() {
    conformance::life(host("tl"), look);
}

#[test]
fn tgt_targets_outlive_the_agent_and_are_found_again_without_a_control_plane() {
    conformance::again(host("ta"));
}

#[test]
fn tgt_what_is_wrong_with_one_instance_is_reported_and_the_other_serves() {
    conformance::fault(host("tf"));
}

/// What a tool of libiscsi says of a logical unit.
fn inquires(node: &str, initiator: &str, user: &str, secret: &str, place: &str) -> bool {
    let url = format!("iscsi://{user}%{secret}@{place}");
    let inquiry = ["netns", "exec", node, "timeout", "5", "iscsi-inq", "-i", initiator, &url];
    output("ip", &inquiry).status.success()
}

#[test]
fn tgt_a_node_boots_from_the_number_that_is_reported_with_the_newest_secret_only() {
    let mut host = host("tb");
    let (volume, config) = (host.volume("1.raw"), host.volume("config.raw"));
    let mut wanted = instance(1, &volume);
    wanted.target.luns.push(DesiredLun { lun: 1, backing: Backing::File { path: config }, read_only: true });
    host.control_plane.want(desired(1, vec![wanted.clone()]));
    host.agent_start();
    host.await_target(wanted.id, &ServiceStatus::Listening);
    // tgt's own controller is LUN 0: the disk cannot be.
    assert_eq!(host.control_plane.status().unwrap().instances[0].boot_lun, 1);
    let node = host.node(1, mac(1));
    address_take(&node, "10.20.0.71");
    let place = |lun: u16| format!("10.20.0.9:3260/{}/{lun}", wanted.target.iqn);
    let secret_of = |boot| {
        let user = BootUser { instance: wanted.id, boot: BootNumber(boot) };
        (user.to_string(), boot_secret(&wanted.boot_key, user))
    };

    // The script says where the disk is, and its secret opens it: for this initiator, and with this secret.
    let script = |host: &Host| {
        let (_, url) = dhcp(host, &node, &["-x", "0x4d:69505845"]);
        address_take(&node, "10.20.0.71");
        fetch(&node, &url)
    };
    let first = script(&host);
    assert!(first.contains("iscsi:10.20.0.9::3260:1:iqn."), "{first}");
    until("the script's boot may log in", || login(&node, &first).then_some(()));
    let user = first.lines().find_map(|line| line.strip_prefix("set username ")).unwrap();
    let boot: u64 = user.rsplit_once('-').unwrap().1.parse().unwrap();
    let (user, secret) = secret_of(boot);
    let initiator = wanted.initiator.as_str();
    assert!(inquires(&node, initiator, &user, secret.expose(), &place(1)));
    assert!(!inquires(&node, initiator, &user, "wrongwrongwrong1", &place(1)), "another secret");
    assert!(!inquires(&node, "iqn.2026-11.x:other", &user, secret.expose(), &place(1)), "another initiator");
    let (nobody, none) = ("nobody", secret_of(0).1);
    assert!(!inquires(&node, initiator, nobody, none.expose(), &place(1)), "the account that stays");
    let open = format!("iscsi://{}", place(1));
    let without = ["netns", "exec", &node, "timeout", "5", "iscsi-inq", "-i", initiator, &open];
    assert!(!output("ip", &without).status.success(), "without a secret");

    // The volumes are what they are to be; a session that lasts is told of, with its boot.
    let disk = |lun| {
        format!(
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=10.20.0.9:3260,file.target={},\
             file.lun={lun},file.user={user},file.password-secret=chap,file.initiator-name={initiator}",
            wanted.target.iqn
        )
    };
    let object = format!("secret,id=chap,data={}", secret.expose());
    let io = |lun, options: &[&str], orders: &[&str]| {
        let disk = disk(lun);
        let tool = ["netns", "exec", &node, "timeout", "20", "qemu-io", "--object", &object];
        let orders: Vec<&str> = orders.iter().flat_map(|order| ["-c", *order]).collect();
        let output = output("ip", &[&tool[..], options, &orders, &["--image-opts", &disk]].concat());
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let told = io(1, &[], &["read -P 0x5a 0 64k", "write -P 0x21 0 64k", "flush", "sleep 3000"]);
    assert!(told.contains("read 65536/65536") && told.contains("wrote 65536/65536"), "{told}");
    assert_eq!(std::fs::read(&volume).unwrap()[..65536], [0x21; 65536]);
    let told = io(2, &["-r"], &["read -P 0x5a 0 64k"]);
    assert!(told.contains("read 65536/65536"), "{told}");
    let told = io(2, &[], &["write 0 64k"]);
    assert!(!told.contains("wrote 65536/65536"), "the config volume is read-only: {told}");
    let of_boot = |event: &EventSource| {
        let EventSource::Target { said: TargetEvent::Login { boot: of, initiator: who, .. }, .. } = event
        else {
            return false;
        };
        *of == Some(BootNumber(boot)) && who == initiator
    };
    until("the session is told of", || {
        host.control_plane.events().iter().any(|event| of_boot(&event.from)).then_some(())
    });
    until("the floor is in the gate", || {
        let gate = std::fs::read_to_string(host.directory(&wanted.id.to_string()).join("boot.json")).unwrap();
        gate.contains(&format!("\"floor\":{boot}")).then_some(())
    });

    // The next script ends the secret of the one before; so it stays when the agent is started again.
    let second = script(&host);
    until("the next boot may log in", || login(&node, &second).then_some(()));
    assert!(!login(&node, &first), "an earlier boot");
    let pid = host.pid(&wanted.id.to_string());
    host.agent_kill();
    host.agent_start();
    let third = script(&host);
    until("and the next", || login(&node, &third).then_some(()));
    assert!(!login(&node, &second) && !login(&node, &first), "earlier boots");
    assert_eq!(host.pid(&wanted.id.to_string()), pid, "found, not started again");
    host.await_target(wanted.id, &ServiceStatus::Listening);
    assert_eq!(host.control_plane.status().unwrap().instances[0].boot_lun, 1, "asked again");
}

#[test]
fn tgt_an_instance_with_a_volume_in_ceph_is_refused_with_the_reason_and_others_are_served() {
    let mut host = host("tc");
    let good = instance(1, &host.volume("1.raw"));
    let mut remote = instance(2, &host.volume("2.raw"));
    let backing = Backing::Rbd { namespace: "a".to_owned(), image: "v".to_owned() };
    remote.target.luns = vec![DesiredLun { lun: 0, backing, read_only: false }];
    remote.ceph = Some(CephAccess {
        mon_host: "10.9.0.1".to_owned(),
        pool: "bmi".to_owned(),
        user: "bmi-x".to_owned(),
        key: CephKey::parse("AQBbYxNnAAAAABAAh0m1m0pXqk5nVvQ7Yk5ZxQ==").unwrap(),
    });
    host.control_plane.want(desired(1, vec![good.clone(), remote.clone()]));
    host.agent_start();
    host.await_target(good.id, &ServiceStatus::Listening);
    let reason = until("it is refused", || {
        let status = host.control_plane.status()?;
        let found = status.instances.into_iter().find(|found| found.id == remote.id)?;
        match found.target {
            ServiceStatus::Failed { reason } => Some(reason),
            _ => None,
        }
    });
    assert!(reason.contains("Ceph") && reason.contains("`tgt`"), "{reason}");
    assert!(!host.directory(&remote.id.to_string()).exists(), "nothing of it");
    let node = host.node(1, mac(1));
    address_take(&node, "10.20.0.71");
    assert!(reaches(&node, "10.20.0.9", 3260), "the other is served");

    // `stop` leaves nothing.
    let pid = host.pid(&good.id.to_string());
    let user: u32 = proc_status(pid, "Uid").split(' ').next().unwrap().parse().unwrap();
    assert!(!processes(user).is_empty());
    host.agent_end();
    host.agent_stop();
    assert_eq!(processes(user), [0_i32; 0], "no process");
    assert!(!host.directory(&good.id.to_string()).exists(), "no directory");
    assert!(!host.links().iter().any(|name| name == "bmi0" || name.starts_with("bt")), "{:?}", host.links());
    assert!(!run("ip", &["netns", "exec", &host.namespace, "nft", "list", "ruleset"]).contains("bmi"));
}

#[test]
fn tgt_a_tgtd_that_stands_still_holds_up_nothing_else() {
    let mut host = host("ts");
    let [still, other] = [1, 2].map(|number| instance(number, &host.volume(&format!("{number}.raw"))));
    host.control_plane.want(desired(1, vec![still.clone()]));
    host.agent_start();
    host.await_target(still.id, &ServiceStatus::Listening);
    let pid = host.pid(&still.id.to_string());
    let process = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGSTOP).unwrap();

    host.control_plane.want(desired(2, vec![still.clone(), other.clone()]));
    host.await_target(other.id, &ServiceStatus::Listening);
    let node = host.node(2, mac(2));
    let (address, url) = dhcp(&host, &node, &["-x", "0x4d:69505845"]);
    address_take(&node, &address);
    let told = script(&node, &url);
    until("the other node's account is made", || login(&node, &told).then_some(()));

    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGCONT).unwrap();
    let node = host.node(1, mac(1));
    let (address, url) = dhcp(&host, &node, &["-x", "0x4d:69505845"]);
    address_take(&node, &address);
    let told = script(&node, &url);
    until("it serves again", || login(&node, &told).then_some(()));
    assert_eq!(host.pid(&still.id.to_string()), pid, "it was not started again");
    host.await_target(still.id, &ServiceStatus::Listening);
}

#[test]
fn tgt_the_check_names_what_is_weaker() {
    let host = host("tk");
    let config = host.config();
    let check = [env!("CARGO_BIN_EXE_bmi-agent"), "check", "--config", config.to_str().unwrap()];
    let said = output("ip", &[&["netns", "exec", &host.namespace][..], &check].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.contains("driver = \"tgt\": stock tgtd hears the nodes"), "{said}");
}
