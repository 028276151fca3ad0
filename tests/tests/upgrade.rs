//! An upgrade of everything while a node writes: control plane, agent, broker, boot services and target, in the order of the
//! guide.
//!
//! Each goes to another file that does the same; with `BMI_PREVIOUS=DIR`, which has the programs of the release before, a flat
//! deployment goes from those to what was built.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends by panicking, and prints how long what stood still"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bmi_tests::engine::{Kind, images};
use bmi_tests::{AgentHost, Client, Deployment, Disk, STORE_SMALL, Writes, repository, run, until, upgrade};
use serde_json::json;

/// Where the programs of the release before are.
const PREVIOUS: &str = "BMI_PREVIOUS";
/// How long what is repeated takes at the longest.
const SOON: Duration = Duration::from_secs(120);
/// Blocks that a node writes around each step, and of these before it.
const BLOCKS: u32 = 400;
const BEFORE: usize = 50;
const MAC: &str = "52:54:00:a9:01:01";

/// Images of the next release: programs that do the same, and are others.
fn next_images(deployment: &Deployment) -> std::path::PathBuf {
    let out = deployment.data.join("next-images");
    let mut words = vec!["--out".to_owned(), out.to_str().unwrap().to_owned()];
    for name in ["bmi-target", "bmi-netboot"] {
        let program = deployment.data.join(format!("static-{name}"));
        std::fs::copy(images().with_file_name("static").join(built(name)), &program).unwrap();
        upgrade(&program);
        words.extend([format!("--{name}"), program.to_str().unwrap().to_owned()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(repository().join("infra/containers/build"), &words);
    out
}

/// Where `infra/containers/build --profile dev` leaves a program.
fn built(name: &str) -> String {
    format!("{}-unknown-linux-gnu/debug/{name}", std::env::consts::ARCH)
}

/// Puts the next release of a program in its place.
fn install(deployment: &Deployment, name: &str) {
    let program = deployment.program(name);
    if std::env::var_os(PREVIOUS).is_none() {
        return upgrade(&program);
    }
    let next = program.with_extension("next");
    std::fs::copy(Deployment::built(name), &next).unwrap();
    std::fs::rename(&next, &program).unwrap();
}

#[test]
fn a_flat_deployment_is_upgraded_under_a_node_that_writes() {
    let mut deployment = match std::env::var_os(PREVIOUS) {
        Some(programs) => Deployment::start_of(std::path::Path::new(&programs), STORE_SMALL),
        None => Deployment::start(STORE_SMALL),
    };
    // Flat: processes, whatever else runs with containers.
    deployment.driver_use("process");
    deployment.control_plane_restart_at_its_address();
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.noise();
    deployment.api.image_of("lab", "noise", "noise.raw");
    for (node, mac) in [("node-1", MAC), ("node-2", "52:54:00:a9:01:02")] {
        deployment.api.node_of(node, mac, "lab");
    }
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&deployment, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();
    let mut salt = 0;
    let mut under_load = |does: &mut dyn FnMut()| {
        salt += 1;
        let mut writes = Writes::start(&disk, directory.path(), BLOCKS, salt);
        assert_eq!(writes.acknowledged(BEFORE), BEFORE);
        does();
        writes.finish(&disk, BEFORE);
    };
    let reported = |deployment: &Deployment| {
        let network = deployment.api.get("/v1/networks/provisioning").expect(200);
        network["agent"]["last_seen"].as_str().unwrap().to_owned()
    };
    let reports = |deployment: &Deployment| {
        let then = reported(deployment);
        until("the agent reports", SOON, || (reported(deployment) > then).then_some(()));
    };

    under_load(&mut || {
        install(&deployment, "bmi-control-plane");
        deployment.control_plane_stop();
        deployment.control_plane_start();
    });
    reports(&deployment);
    deployment.api.instance("lab", "node-2", "noise", &json!({}));

    // What it runs stays as it is.
    let runs = |deployment: &Deployment| {
        let mut found = bmi_tests::processes();
        let uids = deployment.uid_base..deployment.uid_base + 100;
        found.retain(|it| uids.contains(&it.uid) && !it.command.contains("bmi-agent"));
        found.into_iter().map(|it| it.pid).collect::<BTreeSet<_>>()
    };
    let before = runs(&deployment);
    under_load(&mut || {
        install(&deployment, "bmi-agent");
        deployment.agent_end();
        deployment.agent_start_on("provisioning");
        reports(&deployment);
    });
    assert_eq!(runs(&deployment), before);
    deployment.api.instance_remove("lab", "node-2");

    for name in ["bmi-target", "bmi-netboot"] {
        install(&deployment, name);
    }
    under_load(&mut || {
        let done = deployment.agent_command(&["renew"]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.matches("renewed in").count() == 2, "{said}");
        println!("{said}");
    });
    assert!(runs(&deployment).is_disjoint(&before));
    drop(client);
    let client = Client::new(&deployment, "node-1b", MAC);
    assert!(client.login(&client.script(&client.dhcp().1)));
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}

#[test]
fn a_node_writes_while_everything_is_upgraded_and_nothing_is_lost() {
    let kind = Kind::asked_for().unwrap_or(Kind::Docker);
    let (_management, _ceph, mut deployment) = Deployment::start_for_agents(MAC);
    deployment.agents_stay();
    let mut host = AgentHost::new(&deployment, 11, "provisioning", kind);
    host.token_give(&deployment.api.join_token("provisioning"));
    host.agent_start();
    host.listens(&deployment, "provisioning");
    deployment.api.instance("lab", "node-1", "noise", &json!({}));
    let client = Client::new(&host, "node-1", MAC);
    let disk = Disk::of(&client);
    let directory = tempfile::tempdir().unwrap();
    let mut salt = 0;
    // Whatever is done, the node writes meanwhile, and what was acknowledged is there.
    let mut under_load = |what: &str, does: &mut dyn FnMut()| {
        salt += 1;
        let mut writes = Writes::start(&disk, directory.path(), BLOCKS, salt);
        assert_eq!(writes.acknowledged(BEFORE), BEFORE);
        let since = Instant::now();
        does();
        println!("{what}: {:.1} s", since.elapsed().as_secs_f64());
        writes.finish(&disk, BEFORE);
    };
    let running = |host: &AgentHost| {
        let containers = host.engine.containers().into_iter();
        containers.map(|container| container["Id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let before = running(&host);

    under_load("control plane", &mut || {
        upgrade(&deployment.program("bmi-control-plane"));
        deployment.control_plane_stop();
        deployment.control_plane_start();
    });
    // The next control plane with the agent of the one before.
    let reported = || deployment.api.list("/v1/agents")[0]["last_seen"].as_str().unwrap().to_owned();
    let then = reported();
    until("the agent reports to it", SOON, || (reported() > then).then_some(()));
    deployment.api.node_of("node-2", "52:54:00:a9:01:02", "lab");
    deployment.api.instance("lab", "node-2", "noise", &json!({}));

    under_load("agent", &mut || {
        upgrade(&deployment.program("bmi-agent"));
        host.agent_restart();
        let then = reported();
        until("the next agent reports", SOON, || (reported() > then).then_some(()));
    });
    // The next agent with what the one before started: found again, and still of use.
    let adopted = running(&host);
    assert!(before.is_subset(&adopted), "{before:?} {adopted:?}");
    deployment.api.instance_remove("lab", "node-2");

    upgrade(&deployment.program("bmi-broker"));
    host.images_use(&next_images(&deployment));
    host.agent_restart();
    let planned = host.renew(&["--dry-run"]);
    assert_eq!(planned.lines().count(), 3, "boot services, target and broker: {planned}");
    under_load("what the agent runs", &mut || println!("{}", host.renew(&[]).trim()));
    let after = running(&host);
    assert_eq!(after.len(), 2);
    assert!(after.is_disjoint(&adopted), "{adopted:?} {after:?}");
    assert!(host.renew(&[]).contains("everything runs what is installed"));

    // A boot and a release afterwards are as ever.
    drop(client);
    let client = Client::new(&host, "node-1b", MAC);
    assert!(client.login(&client.script(&client.dhcp().1)));
    drop(client);
    deployment.api.instance_remove("lab", "node-1");
}
