//! The agent itself on another host: it joins with no hands, renews, and says what is wrong.

use std::fs;
use std::time::Duration;

use bmi_tests::{Deployment, Management, STORE_SMALL, output, until};
use serde_json::{Value, json};

const NETWORK: &str = "provisioning";
/// How long what an agent does by itself may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shifts the clock of the programs that it is loaded into.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A deployment whose agent is on another host, and has the token to join with.
fn deployment(certificate_s: u64) -> (Management, Deployment) {
    let management = Management::enter();
    // Its database is a file: a server on loopback is in another network than this thread now.
    let mut deployment = Deployment::start_on(STORE_SMALL, None);
    let address = deployment.agents_cable();
    deployment.agents_configure(&address, certificate_s);
    deployment.agents_stay();
    deployment.api.network(NETWORK, "10.77.0.0/24");
    let token = deployment.agent_elsewhere();
    fs::write(token, deployment.api.join_token(NETWORK)).unwrap();
    (management, deployment)
}

fn agent(deployment: &Deployment) -> Value {
    let mut agents = deployment.api.list("/v1/agents");
    assert_eq!(agents.len(), 1);
    agents.pop().unwrap()
}

fn logged(deployment: &Deployment, what: &str) {
    until(what, PATIENCE, || deployment.agent_log().contains(what).then_some(()));
}

/// Waits until the agent has reported after some time.
fn reports_after(deployment: &Deployment, before: &Value) {
    until("the agent reports", PATIENCE, || {
        let now = agent(deployment);
        (now["last_seen"].as_str() > before["last_seen"].as_str()).then_some(())
    });
}

#[test]
fn an_agent_that_starts_before_the_control_plane_joins_when_that_comes() {
    let (_management, mut deployment) = deployment(86_400);
    deployment.control_plane_stop();
    deployment.agent_begin(&[]);
    logged(&deployment, "trying again until it works");
    deployment.assert_alive();
    deployment.control_plane_start();
    deployment.agent_listens(NETWORK);
    let first = agent(&deployment);
    assert_eq!((&first["state"], &first["serving"]), (&json!("active"), &json!(true)));
    // Once it has joined, it needs no token any more; and its own directory is nobody else's.
    fs::remove_file(deployment.data.join("join.token")).unwrap();
    deployment.agent_end();
    let kept = fs::metadata(deployment.data.join("agent/agent/identity.json")).unwrap();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    assert_eq!((kept.permissions().mode() & 0o777, kept.uid()), (0o600, deployment.uid_base));
    deployment.agent_start_on(NETWORK);
    reports_after(&deployment, &first);
    assert_eq!(agent(&deployment)["id"], first["id"]);
    let token = deployment.api.list("/v1/join-tokens").pop().unwrap();
    assert_eq!(token["agent"], first["id"]);
}

#[test]
fn k1_an_agent_that_is_killed_before_it_kept_its_certificate_joins_again_as_the_same() {
    let (_management, mut deployment) = deployment(86_400);
    let directory = deployment.data.join("agent/agent");
    deployment.control_plane_stop();
    deployment.agent_begin(&[]);
    logged(&deployment, "trying again until it works");
    // What is on the disk before anything is sent.
    let (joining, kept) = (directory.join("joining.json"), directory.join("aside.json"));
    fs::copy(&joining, &kept).unwrap();
    deployment.control_plane_start();
    deployment.agent_listens(NETWORK);
    let first = agent(&deployment);
    deployment.agent_kill();
    // As if it had been killed between the answer and the file.
    fs::remove_file(directory.join("identity.json")).unwrap();
    fs::rename(&kept, &joining).unwrap();
    std::os::unix::fs::chown(&joining, Some(deployment.uid_base), Some(deployment.uid_base)).unwrap();
    deployment.agent_start_on(NETWORK);
    reports_after(&deployment, &first);
    let again = agent(&deployment);
    assert_eq!((&again["id"], &again["key_sha256"]), (&first["id"], &first["key_sha256"]));
}

#[test]
fn s6_what_is_wrong_with_a_token_is_said_and_ends_the_joining() {
    let (_management, mut deployment) = deployment(86_400);
    let file = deployment.data.join("join.token");
    let enrol = |arguments: &[&str]| {
        let done = deployment.agent_command(arguments).output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let from_file = ["enrol", "--token-file", file.to_str().unwrap()];
    assert_eq!(enrol(&from_file).0, Some(0));
    // Used already; and who joins again has the same key, so a second token is good.
    let (code, said) = enrol(&[&from_file[..], &["--new"]].concat());
    assert!(code == Some(1) && said.contains("used already"), "{said}");
    deployment.api.network("other", "10.78.0.0/24");
    let other = deployment.api.join_token("other");
    let (code, said) = enrol(&["enrol", "--token", &other]);
    assert!(code == Some(1) && said.contains("not for network `provisioning`"), "{said}");
    let good = deployment.api.join_token(NETWORK);
    let pin = good.split('.').nth(1).unwrap();
    let strange = good.replace(pin, &"0".repeat(64));
    let done = std::thread::scope(|scope| {
        // Whom it does not know it does not give the token to; it waits for another one there.
        let mut child = deployment
            .agent_command(&["enrol", "--token", &strange])
            .stderr(fs::File::create(deployment.data.join("strange.log")).unwrap())
            .spawn()
            .unwrap();
        scope.spawn(|| ());
        until("the stranger is told", PATIENCE, || {
            let said = fs::read_to_string(deployment.data.join("strange.log")).unwrap();
            said.contains("no authority with the hash").then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap()
    });
    assert!(!done.success());
    for (arguments, code) in [
        (&["enrol", "--token", "nonsense"][..], Some(1)),
        (&["enrol"][..], Some(2)),
        (&["enrol", "--token", &good, "--server", "http://x"][..], Some(1)),
    ] {
        assert_eq!(enrol(arguments).0, code, "{arguments:?}");
    }
    // The token is still good: by standard input, which nobody sees. The first one's place is free.
    let first = deployment.api.list("/v1/agents").remove(0)["id"].as_str().unwrap().to_owned();
    deployment.api.post(&format!("/v1/agents/{first}/revoke"), &json!({})).expect(200);
    let mut child = deployment
        .agent_command(&["enrol", "--token-file", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    child.stdin.take().unwrap().write_all(good.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    deployment.agent_start_on(NETWORK);
    // A start without an identity and with a used token ends, and says why.
    deployment.agent_end();
    fs::remove_file(deployment.data.join("agent/agent/identity.json")).unwrap();
    deployment.agent_begin(&[]);
    assert_eq!(deployment.agent_ends(), Some(1));
    assert!(deployment.agent_log().contains("join token is refused"));
}

#[test]
fn an_agent_renews_and_learns_a_new_authority_while_it_serves() {
    let (_management, mut deployment) = deployment(9);
    deployment.agent_start_on(NETWORK);
    let first = agent(&deployment);
    // Longer than two certificates last.
    until("the agent has renewed twice", PATIENCE, || {
        (deployment.agent_log().matches("certificate was renewed").count() >= 2).then_some(())
    });
    assert_ne!(agent(&deployment)["key_sha256"], first["key_sha256"]);
    let old = deployment.api.authorities()[0]["id"].as_str().unwrap().to_owned();
    let new = deployment.api.post("/v1/authorities", &json!({})).expect(201);
    until("the agent has a certificate of the new authority", PATIENCE, || {
        (agent(&deployment)["authority"] == new["id"]).then_some(())
    });
    until("it has spoken with its new key", PATIENCE, || {
        (deployment.api.delete(&format!("/v1/authorities/{old}")).status == 204).then_some(())
    });
    let before = agent(&deployment);
    reports_after(&deployment, &before);
    deployment.agent_listens(NETWORK);
    assert_eq!(agent(&deployment)["id"], first["id"]);
}

#[test]
fn with_a_long_certificate_an_agent_learns_a_new_authority_by_its_next_report() {
    let (_management, mut deployment) = deployment(86_400);
    deployment.agent_start_on(NETWORK);
    let new = deployment.api.post("/v1/authorities", &json!({})).expect(201);
    until("the agent has a certificate of the new authority", PATIENCE, || {
        (agent(&deployment)["authority"] == new["id"]).then_some(())
    });
}

#[test]
fn s6_a_revoked_agent_says_so_and_what_it_runs_goes_on() {
    let (_management, mut deployment) = deployment(86_400);
    deployment.agent_start_on(NETWORK);
    let id = agent(&deployment)["id"].as_str().unwrap().to_owned();
    deployment.api.post(&format!("/v1/agents/{id}/revoke"), &json!({})).expect(200);
    logged(&deployment, "this agent was revoked");
    deployment.assert_alive();
    let uids = deployment.uid_base..deployment.uid_base + 100;
    let runs = |name: &str| {
        bmi_tests::processes().iter().any(|it| uids.contains(&it.uid) && it.command.contains(name))
    };
    assert!(runs("netboot"), "the boot services go on");
}

/// It was off, or away, for longer than its certificate lasts: its key alone says who it is.
#[test]
fn s6_an_agent_whose_certificate_has_expired_hears_that_it_was_replaced() {
    const LIFE_S: u64 = 12;
    let (_management, mut deployment) = deployment(LIFE_S);
    deployment.agent_start_on(NETWORK);
    let old = agent(&deployment)["id"].as_str().unwrap().to_owned();
    deployment.agent_end();
    // With the token it would join again.
    fs::remove_file(deployment.data.join("join.token")).unwrap();
    std::thread::sleep(Duration::from_secs(LIFE_S + 1));
    let namespace = deployment.namespace.clone();
    let has_bridge = || output("ip", &["-n", &namespace, "link", "show", "bmi0"]).status.success();
    assert!(has_bridge(), "what it runs goes on");
    deployment.agent_begin(&[]);
    logged(&deployment, "certificate has expired");
    let (_, next, _) = deployment.member(NETWORK);
    assert!(has_bridge(), "nobody has the network instead");

    let taken = deployment.api.post(&format!("/v1/agents/{old}/replace"), &json!({})).expect(200);
    assert_eq!(taken["id"], next["agent"]);
    until("it has taken everything down", PATIENCE, || (!has_bridge()).then_some(()));
    logged(&deployment, "another agent has the network");
    let uids = deployment.uid_base..deployment.uid_base + 100;
    until("nothing of it runs", PATIENCE, || {
        (!bmi_tests::processes().iter().any(|it| uids.contains(&it.uid) && it.command.contains("netboot")))
            .then_some(())
    });
    deployment.assert_alive();
}

#[test]
fn a_lost_key_is_replaced_once_it_is_approved() {
    let (_management, mut deployment) = deployment(86_400);
    deployment.agent_start_on(NETWORK);
    let id = agent(&deployment)["id"].as_str().unwrap().to_owned();
    deployment.agent_end();
    let token = deployment.api.join_token(NETWORK);
    let arguments = ["enrol", "--token", &token, "--agent", &id];
    let mut joining = deployment.agent_command(&arguments).spawn().unwrap();
    until("the key waits", PATIENCE, || (agent(&deployment)["state"] == "pending").then_some(()));
    assert!(joining.try_wait().unwrap().is_none());
    let _ = deployment.api.key_approve(&id);
    assert!(joining.wait().unwrap().success());
    deployment.agent_start_on(NETWORK);
    assert_eq!(agent(&deployment)["id"], json!(id));
}

/// An agent whose clock is off by minutes joins and serves, and that is told. By days, no certificate is valid: it waits, says
/// both times, and goes on when the clock is set. `way` is how it is said to which side.
fn clock_is_told(minutes: &str, days: &str, way: &str, ahead_ms: std::ops::Range<i64>) {
    let (_management, mut deployment) = deployment(86_400);
    let clock = deployment.data.join("clock");
    fs::write(&clock, minutes).unwrap();
    let clock_path = clock.to_str().unwrap().to_owned();
    let environment = [
        ("LD_PRELOAD", FAKETIME),
        ("FAKETIME_TIMESTAMP_FILE", clock_path.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&clock, fs::Permissions::from_mode(0o644)).unwrap();
    deployment.agent_begin(&environment);
    deployment.agent_listens(NETWORK);
    let said = format!("s {way} the control plane's");
    logged(&deployment, &said);
    let first = agent(&deployment);
    let ahead = first["clock_ahead_ms"].as_i64().unwrap();
    assert!(ahead_ms.contains(&ahead), "{ahead}");
    assert_eq!((&first["state"], &first["serving"]), (&json!("active"), &json!(true)));
    let listed = deployment.cli("lab").run(&["agent", "list"]).ok().out.clone();
    let short = format!("s {}", way.trim_end_matches(" of"));
    assert!(listed.contains(&short), "{listed}");
    let timeline = deployment.api.get(&format!("/v1/networks/{NETWORK}/timeline")).expect(200);
    let mut events = timeline["events"].as_array().unwrap().iter();
    let told = events.find(|event| event["event"] == "agent.clock").unwrap();
    assert!(told["detail"]["reason"].as_str().unwrap().contains(&said), "{told}");
    fs::write(&clock, "+0").unwrap();
    logged(&deployment, "clock is right again");
    until("the control plane sees it", PATIENCE, || {
        (agent(&deployment)["clock_ahead_ms"].as_i64().unwrap().abs() < 60_000).then_some(())
    });
    deployment.agent_end();
    fs::write(&clock, days).unwrap();
    deployment.agent_begin(&environment);
    logged(&deployment, "is not valid at this time");
    until("both times are told", PATIENCE, || {
        (deployment.agent_log().matches(&said).count() >= 2).then_some(())
    });
    let before = agent(&deployment);
    fs::write(&clock, "+0").unwrap();
    reports_after(&deployment, &before);
    assert_eq!(agent(&deployment)["id"], first["id"]);
}

#[test]
fn a_clock_that_is_ten_minutes_off_is_told_and_does_no_harm() {
    clock_is_told("-10m", "-3d", "behind", -660_000..-540_000);
}

#[test]
fn a_clock_that_is_ten_minutes_ahead_is_told_and_does_no_harm() {
    clock_is_told("+10m", "+3d", "ahead of", 540_000..660_000);
}
