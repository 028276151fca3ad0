//! What the operations guide promises: install, backup and restore, and what is in it about files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bmi_tests::{Deployment, Postgres, STORE_SMALL, output, repository, run, until};
use serde_json::json;

/// The commands of the guide's section on backup, on a deployment of a test instead of the installed one.
#[test]
fn a_backup_brings_a_lost_control_plane_back_and_nothing_newer_is_lost() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    deployment.agent_start();
    deployment.api.image("lab", "golden");
    deployment.api.node_of("node-1", "52:54:00:0d:00:01", "lab");
    deployment.api.node_of("node-2", "52:54:00:0d:00:02", "lab");
    deployment.api.instance("lab", "node-1", "golden", &json!({}));
    let data = deployment.data.join("control-plane");
    let backup = deployment.data.join("backup");

    let guide = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    for command in ["backup --to DIR", "restore --from DIR"] {
        assert!(guide.contains(&format!("bmi-control-plane --config FILE {command}")), "{command}");
    }
    let config = deployment.data.join("control-plane.toml");
    let config = config.to_str().unwrap();
    let program = deployment.program("bmi-control-plane");
    let program = program.to_str().unwrap();
    // While the server runs.
    run(program, &["--config", config, "backup", "--to", backup.to_str().unwrap()]);
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "the backup opens every secret");

    // Made after the backup; then the state is lost.
    deployment.api.instance("lab", "node-2", "golden", &json!({}));
    deployment.control_plane_stop();
    let lost = ["bmi.sqlite", "bmi.sqlite-wal", "bmi.sqlite-shm", "master.key", "audit.key", "admin.token"];
    for name in lost {
        fs::remove_file(data.join(name)).ok();
    }
    deployment.database.iter().for_each(|url| Postgres::empty(url));
    run(program, &["--config", config, "restore", "--from", backup.to_str().unwrap()]);
    deployment.control_plane_start();

    let api = &deployment.api;
    let instances = api.list("/v1/projects/lab/instances");
    assert_eq!(instances.len(), 1, "{instances:#?}");
    until("the target of the instance listens", Duration::from_secs(30), || {
        let now = api.get("/v1/projects/lab/instances/node-1").expect(200);
        (now["target_state"] == "listening").then_some(())
    });
    // Keys can be read: the node can be provisioned anew.
    api.instance_remove("lab", "node-1");
    api.instance("lab", "node-1", "golden", &json!({}));
    // What was made since is nobody's, and is kept aside.
    until("the newer volumes are aside", Duration::from_secs(30), || {
        (fs::read_dir(deployment.store().join("aside")).ok()?.count() == 2).then_some(())
    });
}

#[test]
fn every_path_and_program_of_the_guide_is_there() {
    let guide = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    for script in ["infra/packages", "infra/install", "infra/golden/build", "infra/quickstart"] {
        assert!(guide.contains(script) && repository().join(script).exists(), "{script}");
    }
    let cli = Deployment::built("bmi");
    let commands = guide.lines().filter_map(|line| line.split(" #").next()?.strip_prefix("bmi "));
    let mut seen = 0;
    for command in commands {
        // With `--help` at its end nothing is done, and what is not known is refused before.
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let said = output(&cli, &words);
        assert!(said.status.success(), "`bmi {command}`: {}", String::from_utf8_lossy(&said.stderr));
        seen += 1;
    }
    assert!(seen >= 8, "the guide shows commands");
}

/// Installs debug programs as if they were a release, below a directory.
#[test]
fn an_installation_has_everything_and_keeps_what_was_configured() {
    let place = Path::new("/var/lib/bmi-tests").join(format!("install-{}", std::process::id()));
    let built = place.join("target/release");
    fs::create_dir_all(&built).unwrap();
    for program in ["bmi", "bmi-control-plane", "bmi-agent", "bmi-target", "bmi-netboot", "bmi-broker"] {
        fs::copy(Deployment::built(program), built.join(program)).unwrap();
    }
    let root = place.join("root");
    let install = |root: &Path, options: &[&str]| {
        let ran = std::process::Command::new(repository().join("infra/install"))
            .args(["--destdir", root.to_str().unwrap()])
            .args(options)
            .env("CARGO_TARGET_DIR", place.join("target"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    install(&root, &[]);
    for file in [
        "usr/local/bin/bmi",
        "usr/local/sbin/bmi-target",
        "usr/local/sbin/bmi-broker",
        "etc/systemd/system/bmi-agent.service",
        "etc/sysctl.d/90-bmi.conf",
        "usr/local/share/man/man1/bmi.1",
        "usr/local/share/bash-completion/completions/bmi",
    ] {
        assert!(fs::metadata(root.join(file)).is_ok_and(|found| found.len() > 0), "{file}");
    }
    // The example is valid as it is.
    let config = root.join("etc/bmi/control-plane.toml");
    let checked = output(
        root.join("usr/local/sbin/bmi-control-plane"),
        &["--config", config.to_str().unwrap(), "check-config"],
    );
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // The agent's names a card that this machine lacks, and nothing worse.
    let agent = root.join("etc/bmi/agent.toml");
    let checked =
        output(root.join("usr/local/sbin/bmi-agent"), &["--config", agent.to_str().unwrap(), "check"]);
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(told.contains("enp1s0") && !told.contains("unknown field"), "{told}");
    // So are those of two networks, on hosts of their own: what is told is what this machine lacks.
    let examples = bmi_tests::repository().join("infra/examples/two-networks");
    let words = |name: &str, verb| ["--config".to_owned(), examples.join(name).display().to_string(), verb];
    let run = |program: &str, words: [String; 3]| {
        output(root.join("usr/local/sbin").join(program), &words.each_ref().map(String::as_str))
    };
    let checked = run("bmi-control-plane", words("control-plane.toml", "check-config".to_owned()));
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for name in ["agent-red.toml", "agent-blue.toml"] {
        let told = String::from_utf8(run("bmi-agent", words(name, "check".to_owned())).stdout).unwrap();
        assert!(told.contains("enp2s0") && told.contains("join_token_file"), "{told}");
        assert!(!told.contains("unknown field") && !told.contains("missing field"), "{told}");
    }
    fs::write(&config, "mine").unwrap();
    assert!(install(&root, &[]).contains("kept: /etc/bmi/control-plane.toml"));
    assert_eq!(fs::read_to_string(&config).unwrap(), "mine");

    // On an agent's host there is no control plane that the agent's unit would start.
    let host = place.join("host");
    install(&host, &["--agent"]);
    for file in
        ["usr/local/sbin/bmi-agent", "usr/local/sbin/bmi-broker", "etc/systemd/system/bmi-agent.service"]
    {
        assert!(host.join(file).exists(), "{file}");
    }
    for file in
        ["usr/local/sbin/bmi-control-plane", "etc/systemd/system/bmi-control-plane.service", "etc/bmi"]
    {
        assert!(!host.join(file).exists(), "{file}");
    }
    fs::remove_dir_all(&place).unwrap();
}
