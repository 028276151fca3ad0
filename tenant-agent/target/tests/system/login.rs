use std::fs;

use bmi_agent_api::event::TargetEvent;

use crate::target::{NAME, Target, must, run};

#[test]
fn discovery_lists_the_units_and_inquiry_tells_their_names() {
    let target = Target::start(&["--lun", "0=memory:8M", "--lun", "1=memory:1M,ro"]);
    let list = must("iscsi-ls", &["-s", &format!("iscsi://{}", target.address)]);
    assert!(list.contains(&format!("Target:{NAME} Portal:{},1", target.address)), "{list}");
    assert!(list.contains("Lun:0") && list.contains("Lun:1"), "{list}");
    assert!(must("iscsi-inq", &[&target.url(0)]).contains("Product:Boot volume"));
    assert!(must("iscsi-inq", &[&target.url(1)]).contains("Product:Config volume"));
    let serial = |lun| must("iscsi-inq", &["-e", "1", "-c", "128", &target.url(lun)]);
    assert_eq!(serial(0), serial(0));
    assert_ne!(serial(0), serial(1));
}

#[test]
fn a_stranger_finds_nothing() {
    let target = Target::start(&["--lun", "0=memory:1M", "--initiator", "iqn.2026-01.example:node"]);
    assert!(!run("iscsi-ls", &[&format!("iscsi://{}", target.address)]).status.success());
    assert!(!run("iscsi-inq", &[&target.url(0)]).status.success());
    assert!(run("iscsi-inq", &["-i", "iqn.2026-01.example:node", &target.url(0)]).status.success());
    let TargetEvent::LoginRefused { reason, .. } =
        target.expect(|event| matches!(event, TargetEvent::LoginRefused { .. }))
    else {
        unreachable!()
    };
    assert_eq!(reason, "initiator is not on the list");
}

#[test]
fn chap_lets_in_one_user_with_one_secret() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "sixteen letters!\n").unwrap();
    let target = Target::start(&[
        "--lun",
        "0=memory:1M",
        "--chap-user",
        "node",
        "--chap-secret-file",
        &secret.display().to_string(),
    ]);
    let inquire = |url: &str| run("iscsi-inq", &[url]).status.success();
    assert!(inquire(&target.url_as("node", "sixteen letters!")));
    assert!(!inquire(&target.url_as("node", "sixteen Letters!")));
    assert!(!inquire(&target.url_as("nobody", "sixteen letters!")));
    assert!(!inquire(&target.url(0)));
    let events = target.stop();
    assert_eq!(events.iter().filter(|event| matches!(event, TargetEvent::LoginRefused { .. })).count(), 3);
    assert_eq!(events.iter().filter(|event| matches!(event, TargetEvent::Login { .. })).count(), 1);
}

#[test]
fn t3_libiscsi_logs_in_with_mutual_chap_and_finds_a_target_out_that_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (theirs, ours) = (file("theirs", "sixteen-letters!\n"), file("ours", "the-targets-own!\n"));
    let target = Target::start(&[
        "--lun",
        "0=memory:1M",
        "--chap-user",
        "node",
        "--chap-secret-file",
        &theirs,
        "--mutual-user",
        "target",
        "--mutual-secret-file",
        &ours,
    ]);
    let inquire = |name: &str, secret: &str| {
        let url = target.url_as("node", "sixteen-letters!");
        run("iscsi-inq", &[&format!("{url}?target_user={name}&target_password={secret}")]).status.success()
    };
    assert!(inquire("target", "the-targets-own!"));
    assert!(!inquire("target", "anothers-secret!"));
    assert!(!inquire("another", "the-targets-own!"));
    assert!(run("iscsi-inq", &[&target.url_as("node", "sixteen-letters!")]).status.success(), "one way too");
}
