//! A start that says what is missing, and leaves nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmi_drivers::image::Converter;
use bmi_drivers::store::ceph::{CephSettings, CephStore};
use bmi_tests::{Ceph, MemoryRecords, until};
use bmi_types::chain;
use serde_json::Value;

use crate::open;

async fn refused(change: impl FnOnce(&mut CephSettings)) -> String {
    let ceph = Ceph::shared();
    let staging = tempfile::tempdir().unwrap();
    let mut settings = ceph.store_settings(staging.path().to_owned());
    change(&mut settings);
    match CephStore::open(settings, Converter::nothing(), Arc::new(MemoryRecords::default())).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => chain(&error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_there_or_not_for_rbd_is_told() {
    let told = refused(|settings| "nope".clone_into(&mut settings.pool)).await;
    assert!(told.contains("ceph osd pool create nope"), "{told}");
    Ceph::shared().ceph(&["osd", "pool", "create", "plain", "1"]);
    let told = refused(|settings| "plain".clone_into(&mut settings.pool)).await;
    assert!(told.contains("ceph osd pool application enable plain rbd"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_to_import_from_that_is_not_there_or_not_readable_is_told() {
    let import = |settings: &mut CephSettings, namespace: &str| {
        settings.import_namespace = Some(namespace.to_owned());
    };
    let told = refused(|settings| import(settings, "nowhere")).await;
    assert!(told.contains("rbd namespace create bmi/nowhere"), "{told}");
    let ceph = Ceph::shared();
    ceph.rbd(&["namespace", "create", "bmi/closed"]);
    let keyring = ceph.directory().join("no-import.keyring");
    let user = ["auth", "get-or-create", "client.no-import"];
    // Its own namespaces it may use, as one that was given each by name.
    let caps = ["mon", "allow *", "osd", "allow rwx pool=bmi namespace=\"\""];
    ceph.ceph(&[&user[..], &caps, &["-o", keyring.to_str().unwrap()]].concat());
    let told = refused(|settings| {
        import(settings, "closed");
        "no-import".clone_into(&mut settings.user);
        settings.keyring = Some(keyring);
    })
    .await;
    assert!(told.contains("osd 'profile rbd-read-only pool=bmi namespace=closed'"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_another_database_is_told_and_stays_that_one_s() {
    let open = async |records: MemoryRecords| {
        let staging = tempfile::tempdir().unwrap();
        let settings = Ceph::shared().store_settings(staging.path().to_owned());
        CephStore::open(settings, Converter::nothing(), Arc::new(records)).await.map(drop)
    };
    // All tests here are one database, and start again and again.
    for _ in 0..2 {
        open(MemoryRecords::default()).await.unwrap();
    }
    let told = chain(&open(MemoryRecords::of_another()).await.unwrap_err());
    assert!(told.contains("belongs to the database") && told.contains("rados -p bmi rm bmi_owner"), "{told}");
    open(MemoryRecords::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_not_known_is_told() {
    let told = refused(|settings| "stranger".clone_into(&mut settings.user)).await;
    assert!(told.contains("client.stranger") && told.contains("keyring"), "{told}");
}

/// The commands of the monitors that a start tries, but for those that every user with `allow r` may give.
const COMMANDS: [&str; 5] = ["auth get-or-create", "auth get", "auth caps", "auth rm", "osd blocklist"];

/// The right to give all of them but one.
fn all_but(command: &str) -> String {
    let others = COMMANDS.iter().filter(|other| **other != command);
    let rights: Vec<String> = others.map(|other| format!("allow command \"{other}\"")).collect();
    rights.join(", ")
}

/// What a start says to a user with some rights. It leaves no user behind that it may remove.
async fn told_to(user: &str, caps: &[&str]) -> String {
    let ceph = Ceph::shared();
    let keyring = ceph.directory().join(format!("{user}.keyring"));
    let entity = format!("client.{user}");
    let fixed = ["auth", "get-or-create", entity.as_str()];
    let said = ceph.ceph(&[&fixed, caps, &["-o", keyring.to_str().unwrap()]].concat());
    assert_eq!(said.trim(), "");
    let told = refused(|settings| {
        user.clone_into(&mut settings.user);
        settings.keyring = Some(keyring);
    })
    .await;
    assert!(told.contains(&entity), "{user}: {told}");
    let left = ceph.users(&format!("{user}-preflight-"));
    assert_eq!(left.len(), usize::from(user == "no-auth-rm"), "{user}: {:?}", left.keys());
    for name in left.keys() {
        ceph.ceph(&["auth", "rm", &format!("client.{name}")]);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_is_told() {
    let ceph = Ceph::shared();
    let pool = "osd 'profile rbd pool=bmi'";
    let root = "allow rwx pool=bmi namespace=\"\"";
    let cases = [
        ("nothing", vec!["mon", "allow r"], "may not give the command `auth get-or-create`"),
        ("no-df", vec!["mon", "allow service osd r"], "mon 'allow command \"df\"'"),
        ("no-pool-ls", vec!["mon", "allow service mon r"], "mon 'allow command \"osd pool ls\"'"),
        ("no-osd", vec!["mon", "allow *"], pool),
        ("no-namespaces", vec!["mon", "allow *", "osd", root], pool),
    ];
    for (user, caps, missing) in cases {
        let told = told_to(user, &caps).await;
        assert!(told.contains(missing), "{user}: {told}");
    }
    for command in COMMANDS {
        let user = format!("no-{}", command.replace(' ', "-"));
        let mon = format!("allow r, {}", all_but(command));
        let told = told_to(&user, &["mon", &mon, "osd", "profile rbd pool=bmi"]).await;
        let missing =
            format!("may not give the command `{command}`: it needs mon 'allow command \"{command}\"'");
        assert!(told.contains(&missing), "{user}: {told}");
    }
    // The profile lets a client be put on the blocklist, and not be taken off it.
    let mon = format!("profile rbd, {}", all_but("osd blocklist"));
    let told = told_to("no-blocklist-rm", &["mon", &mon, "osd", "profile rbd pool=bmi"]).await;
    let missing = "may not take a client off the blocklist: it needs mon 'allow command \"osd blocklist\"'";
    assert!(told.contains(missing), "{told}");
    // Other tests open stores meanwhile: theirs is there for a moment, what is left behind stays.
    until("no namespace and no user of a start is left", Duration::from_secs(60), || {
        let there = ceph.rbd(&["namespace", "ls", "bmi"]) + &ceph.ceph(&["auth", "ls"]);
        // Of starts of the other test, which were never made.
        let there = there.lines().filter(|line| !line.contains(NEVER_MADE));
        (!there.clone().any(|line| line.contains("preflight"))).then_some(())
    });
}

/// How the names of namespaces end that a test made as if a start had left them.
const NEVER_MADE: &str = "-7000-8000-000000000000";

/// The namespace of a start at a time, in seconds since 1970.
fn space_of(seconds: u64) -> String {
    let at = format!("{:012x}", seconds * 1000);
    let (high, low) = at.split_at(8);
    format!("bmi-preflight-{high}-{low}{NEVER_MADE}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_start_left_is_removed_by_a_later_one() {
    let ceph = Ceph::shared();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (old, young) = (space_of(now - 2 * 3600), space_of(now));
    // Stores that other tests open meanwhile leave it alone.
    let lock = |words: &[&str]| ceph.rados(&[&["--pool", "bmi", "lock"], words].concat());
    lock(&["get", "bmi.preflight", "bmi", "--lock-cookie", "test", "--lock-duration", "60"]);
    let locker = || {
        let info: Value = serde_json::from_str(&lock(&["info", "bmi.preflight", "bmi"])).unwrap();
        info["lockers"][0]["name"].as_str().unwrap().to_owned()
    };
    for space in [&old, &young] {
        ceph.rbd(&["namespace", "create", &format!("bmi/{space}")]);
    }
    let [image, clone] = ["image", "clone"].map(|name| format!("bmi/{old}/{name}"));
    ceph.rbd(&["create", &image, "--size", "1M"]);
    ceph.rbd(&["snap", "create", "--no-progress", &format!("{image}@golden")]);
    ceph.rbd(&["clone", "--rbd-default-clone-format", "2", &format!("{image}@golden"), &clone]);
    // It was already removing what it had made.
    ceph.rbd(&["trash", "mv", &clone]);
    lock(&["break", "bmi.preflight", "bmi", &locker(), "--lock-cookie", "test"]);
    drop(open(ceph).await);
    until("the old one is gone", Duration::from_secs(60), || {
        (!ceph.namespaces().contains(&old)).then_some(())
    });
    assert!(ceph.namespaces().contains(&young), "somebody may be at work there");
    ceph.rbd(&["namespace", "rm", &format!("bmi/{young}")]);
}
