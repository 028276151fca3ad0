//! A new master key, with something sealed of every kind; and `rekey` that is killed.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bmi_tests::{OidcProvider, Postgres, Random, operation_end, until};
use serde_json::{Value, json};

use crate::world::{INSTANCES, Pair, instance, nodes_make};

const SOON: Duration = Duration::from_secs(30);
/// Where service accounts are made.
const ACCOUNTS: &str = "/v1/projects/lab/service-accounts";
/// Kills at a random moment; and how long the work takes from where the new key is made, in microseconds.
const KILLS: u64 = 8;
const WORK_US: u64 = 6_000;
/// Everything that is sealed.
const SEALED: &str = "SELECT boot_key_sealed FROM instances UNION ALL SELECT user_data_sealed FROM instances \
                      UNION ALL SELECT secrets_sealed FROM sign_ins \
                      UNION ALL SELECT answer FROM idempotency WHERE answer LIKE 'v1:%'";

struct World {
    pair: Pair,
    /// The operation that provisions an instance: it waits, for there is no agent yet.
    operation: Value,
    /// An answer with a token.
    kept: Value,
    _provider: OidcProvider,
}

fn account() -> Value {
    json!({"name": "ci", "role": "project-member", "scopes": ["*"], "expires_days": 1})
}

impl World {
    fn new() -> Self {
        let mut pair = Pair::start();
        let provider = OidcProvider::start(&pair.first);
        let settings = provider.settings(&pair.first);
        pair.first.sign_in_configure(&format!("[local_admin]\nenabled = true\n{settings}"));
        let api = &pair.first.api;
        api.network("provisioning", "10.77.0.0/24");
        api.image("lab", "golden");
        nodes_make(api, 1);
        let mut web = instance("web", 0);
        web["user_data"] = json!("#!/bin/sh\n# a secret\n");
        let operation = pair.second.api.post(INSTANCES, &web).expect(202);
        let kept = api.post_with_key(ACCOUNTS, "kept", &account()).expect(201);
        // Somebody is about to sign in.
        let redirect = api.get("/v1/sign-in/corp/start");
        assert!((300..400).contains(&redirect.status), "{redirect:?}");
        let world = Self { pair, operation, kept, _provider: provider };
        assert_eq!(world.sealed().len(), 4, "a boot key, user data, a sign-in, an answer");
        world
    }

    fn sealed(&self) -> Vec<String> {
        self.pair.rows(SEALED)
    }

    fn key_file(&self) -> PathBuf {
        self.pair.first.data.join("control-plane/master.key")
    }

    fn next_key_file(&self) -> PathBuf {
        self.pair.first.data.join("control-plane/master.key.next")
    }

    fn stop(&mut self) {
        self.pair.first.control_plane_stop();
        self.pair.second.stop();
    }

    fn start(&mut self) {
        self.pair.first.control_plane_start();
        self.pair.second.start();
    }

    /// Runs `rekey` to its end.
    fn rekey(&self) -> Result<String, String> {
        let ran = self.pair.first.control_plane_command(&["rekey"]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
    }

    /// Both replicas still give the answer that was kept, and what the next key was made for is done or undone.
    fn assert_opens(&self) {
        for api in self.pair.apis() {
            assert_eq!(api.post_with_key(ACCOUNTS, "kept", &account()).expect(201), self.kept);
        }
        assert!(!self.next_key_file().exists());
        // It opens every secret with the keys that it keeps, or fails.
        let to = self.pair.first.data.join("backup");
        let backup =
            self.pair.first.control_plane_command(&["backup", "--to", to.to_str().unwrap()]).output();
        let backup = backup.unwrap();
        assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
        fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn everything_is_sealed_anew_and_all_of_it_still_opens() {
    let mut world = World::new();
    let (before, old_key) = (world.sealed(), fs::read(world.key_file()).unwrap());
    world.pair.first.control_plane_stop();
    let refused = world.rekey().unwrap_err();
    assert!(refused.contains("stop every replica first"), "{refused}");
    assert_eq!((world.sealed(), fs::read(world.key_file()).unwrap()), (before.clone(), old_key.clone()));
    world.pair.second.stop();
    let told = world.rekey().unwrap();
    assert!(told.starts_with("4 secrets"), "{told}");
    let after = world.sealed();
    assert!(after.len() == 4 && after.iter().all(|sealed| !before.contains(sealed)), "all are other ones");
    assert_ne!(fs::read(world.key_file()).unwrap(), old_key);
    world.start();
    world.assert_opens();

    // The boot key reaches the agent, and the node's disk is served.
    world.pair.first.agent_start_on("provisioning");
    assert_eq!(operation_end(&world.pair.second.api, &world.operation)["state"], "succeeded");
    world.pair.assert_there(1, 1);
    // A replica that has the old key still does not start.
    let text = fs::read_to_string(&world.pair.second.config).unwrap();
    let old = world.pair.first.data.join("old.key");
    fs::copy(world.key_file(), &old).unwrap();
    fs::write(&old, old_key).unwrap();
    world.pair.second.stop();
    let other = text.replace(world.key_file().to_str().unwrap(), old.to_str().unwrap());
    fs::write(&world.pair.second.config, other).unwrap();
    let refused = world.pair.second.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("does not open the secrets"), "{said}");
    fs::write(&world.pair.second.config, text).unwrap();
    world.pair.second.start();
    world.assert_opens();
}

/// The two states in which a killed `rekey` leaves something to be settled, made for certain.
#[test]
fn a_rekey_killed_before_or_after_its_work_is_undone_or_finished_by_the_next_start() {
    let mut world = World::new();
    let (before, old_key) = (world.sealed(), fs::read(world.key_file()).unwrap());
    world.stop();
    // Before: it has made its key and waits for the lock of the writer, which somebody has.
    let url = world.pair.first.database.clone().unwrap();
    let mut holder = world.pair.first.database_hold(60);
    let mut rekey = world.pair.first.control_plane_command(&["rekey"]).spawn().unwrap();
    until("it has made its key", SOON, || world.next_key_file().exists().then_some(()));
    rekey.kill().unwrap();
    rekey.wait().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    // What was the holder's there ends with a word: it would notice only later that the holder is gone.
    let theirs = "pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'";
    let ended = Postgres::sql(
        &url,
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {theirs}"),
    );
    assert_eq!(ended.trim(), "t");
    assert!(world.next_key_file().exists());
    world.start();
    world.assert_opens();
    assert_eq!((world.sealed(), fs::read(world.key_file()).unwrap()), (before.clone(), old_key.clone()));

    // After: everything is sealed under the new key, which does not have its name yet.
    world.stop();
    world.rekey().unwrap();
    let new_key = fs::read(world.key_file()).unwrap();
    fs::rename(world.key_file(), world.next_key_file()).unwrap();
    fs::copy(world.next_key_file(), world.key_file()).unwrap();
    fs::write(world.key_file(), old_key).unwrap();
    world.start();
    world.assert_opens();
    assert_eq!(fs::read(world.key_file()).unwrap(), new_key);
}

#[test]
fn a_rekey_killed_at_any_moment_leaves_a_database_that_opens() {
    let mut world = World::new();
    world.stop();
    let began = Instant::now();
    world.rekey().unwrap();
    let lasts = u64::try_from(began.elapsed().as_micros()).unwrap();
    let mut random = Random::of_the_run();
    for round in 0..KILLS {
        let mut rekey =
            world.pair.first.control_plane_command(&["rekey"]).stdout(Stdio::null()).spawn().unwrap();
        // Half of them from the start on, half of them where it matters.
        let mut within = lasts;
        if round % 2 == 1 {
            within = WORK_US;
            while !world.next_key_file().exists() && rekey.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        let after = random.below(within);
        std::thread::sleep(Duration::from_micros(after));
        rekey.kill().unwrap();
        let (ended, half) = (rekey.wait().unwrap(), world.next_key_file().exists());
        println!("round {round}: killed after {after} of {within} µs: {ended}, its key is left: {half}");
        // Either way goes on: the next rekey, or the next start.
        if round % 4 < 2 {
            world.rekey().unwrap();
        }
        world.start();
        world.assert_opens();
        world.stop();
    }
}
