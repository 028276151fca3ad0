//! The `hil` driver before a simulated HIL: its faults, and what must hold meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmi_drivers::isolation::{Attachment, Hil, HilSettings, IsolatedNode, NetworkIsolation};
use bmi_tests::{HIL_PASSWORD, HIL_USER, HilFault, SimulatedHil};
use bmi_types::{NetworkId, NodeId, Secret, chain};

use crate::Known;
use crate::suite::Cast;

/// A HIL with two nodes of ours. One is called otherwise there, and so is a network.
#[derive(Clone)]
pub struct World {
    pub hil: SimulatedHil,
    pub cast: Cast,
}

const FIRST: &str = "r3-u12";

impl World {
    pub fn new() -> Self {
        let hil = SimulatedHil::start(&["bmi-red", "blue", "storage"]);
        hil.node(
            FIRST,
            &[("em1", "52:54:00:00:00:01"), ("em2", "5254.0000.0002"), ("other", "52:54:00:00:00:77")],
        );
        hil.node("node-2", &[("em1", "52:54:00:00:00:03")]);
        Self { hil, cast: Cast::new() }
    }

    pub fn driver(&self) -> Arc<Hil> {
        self.driver_of(HIL_PASSWORD, Duration::from_secs(5))
    }

    fn driver_of(&self, password: &str, operation_timeout: Duration) -> Arc<Hil> {
        let node = |name: &str, macs: &[&str]| IsolatedNode {
            name: name.parse().unwrap(),
            macs: macs.iter().map(|mac| mac.parse().unwrap()).collect(),
        };
        let known = Known {
            nodes: BTreeMap::from([
                (self.cast.first, node("node-1", &["52:54:00:00:00:01", "52:54:00:00:00:02"])),
                (self.cast.second, node("node-2", &["52:54:00:00:00:03"])),
            ]),
            networks: BTreeMap::from([
                (self.cast.red, "red".parse().unwrap()),
                (self.cast.blue, "blue".parse().unwrap()),
            ]),
        };
        let settings = HilSettings {
            url: self.hil.url(),
            user: HIL_USER.to_owned(),
            password: Secret::new(password.to_owned()),
            ca_file: None,
            channel: "vlan/native".to_owned(),
            request_timeout: Duration::from_secs(2),
            operation_timeout,
            nodes: BTreeMap::from([("node-1".parse().unwrap(), FIRST.to_owned())]),
            networks: BTreeMap::from([("red".parse().unwrap(), "bmi-red".to_owned())]),
        };
        Arc::new(Hil::new(settings, Arc::new(known)).unwrap())
    }

    pub fn networks_of(&self, node: NodeId) -> Vec<NetworkId> {
        let name = if node == self.cast.first { FIRST } else { "node-2" };
        let network = |name: &str| if name == "bmi-red" { self.cast.red } else { self.cast.blue };
        self.hil.attachments(name).iter().map(|(_, _, on)| network(on)).collect()
    }

    /// Tries until it comes about, as a workflow does; gives what was said before.
    async fn insist(&self, attach: bool) -> Vec<String> {
        let (driver, mut said) = (self.driver(), Vec::new());
        for _ in 0..10 {
            let Cast { first, red, .. } = self.cast;
            let tried = match attach {
                true => driver.attach(first, red).await,
                false => driver.detach(first, red).await,
            };
            match tried {
                Ok(()) => return said,
                Err(error) => said.push(chain(&error)),
            }
        }
        panic!("it does not come about: {said:?}");
    }
}

#[tokio::test]
async fn whatever_fails_once_comes_about_and_is_told() {
    let faults = [
        (HilFault::Error, "500"),
        (HilFault::LostAnswer, "did not answer"),
        (HilFault::Slow(Duration::from_secs(3)), "did not answer"),
        (HilFault::ActionFails, "ended as ERROR"),
        (HilFault::ActionLies, "still shows"),
    ];
    for (fault, word) in faults {
        let world = World::new();
        for attach in [true, false] {
            world.hil.faults(&[fault]);
            let said = world.insist(attach).await;
            assert_eq!(world.hil.faults_left(), 0, "{fault:?} never happened");
            assert!(said.iter().any(|line| line.contains(word)), "{fault:?}: {said:?}");
            assert!(said.iter().all(|line| !line.contains(HIL_PASSWORD)), "{said:?}");
            let expected = if attach { vec![world.cast.red; 2] } else { Vec::new() };
            assert_eq!(world.networks_of(world.cast.first), expected, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn what_is_still_under_way_is_no_quarantine() {
    let world = World::new();
    let Cast { first, red, .. } = world.cast;
    let hasty = world.driver_of(HIL_PASSWORD, Duration::from_secs(1));
    world.hil.freeze(true);
    let late = chain(&hasty.attach(first, red).await.unwrap_err());
    assert!(late.contains("not done with NIC `em1`"), "{late}");
    // HIL shows no attachment, and the change is still to come.
    assert_eq!(world.networks_of(first), []);
    assert_eq!(hasty.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    let late = chain(&hasty.detach(first, red).await.unwrap_err());
    assert!(late.contains("already active"), "{late}");
    world.hil.freeze(false);
    hasty.detach(first, red).await.unwrap();
    assert!(!world.hil.is_busy());
    assert_eq!(
        (hasty.observe(first, red).await.unwrap(), world.networks_of(first)),
        (Attachment::Detached, vec![])
    );
}

#[tokio::test]
async fn who_contradicts_itself_is_not_asked_for_ever() {
    let world = World::new();
    let Cast { first, red, .. } = world.cast;
    world.driver().attach(first, red).await.unwrap();
    world.hil.contradict(true);
    let asked = world.hil.requests().len();
    let hasty = world.driver_of(HIL_PASSWORD, Duration::from_secs(1));
    let tried = tokio::time::timeout(Duration::from_secs(30), hasty.detach(first, red)).await;
    let said = chain(&tried.unwrap().unwrap_err());
    assert!(said.contains("says that it is not"), "{said}");
    assert!(world.hil.requests().len() - asked < 50, "it pauses");
    world.hil.contradict(false);
    hasty.detach(first, red).await.unwrap();
    assert_eq!(world.networks_of(first), []);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_not_forgotten() {
    let world = World::new();
    let Cast { first, red, .. } = world.cast;
    world.hil.delay(Duration::from_millis(700));
    world.hil.faults(&[HilFault::LostAnswer]);
    world.driver().attach(first, red).await.unwrap_err();
    // A driver that knows nothing of it, as after a restart: nothing is attached yet, and it will be.
    let anew = world.driver();
    assert_eq!(anew.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    anew.detach(first, red).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.networks_of(first), []);
}

#[tokio::test]
async fn hil_that_goes_and_comes_back_in_mid_operation_loses_nothing() {
    let world = World::new();
    let Cast { first, red, .. } = world.cast;
    world.hil.freeze(true);
    let (driver, hil) = (world.driver(), world.hil.clone());
    let attaching = tokio::spawn(async move { driver.attach(first, red).await });
    while !world.hil.is_busy() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hil.down(true);
    assert!(chain(&attaching.await.unwrap().unwrap_err()).contains("did not answer"));
    let silent = world.driver();
    assert!(silent.observe(first, red).await.is_err(), "nobody can tell");
    assert!(silent.detach(first, red).await.is_err(), "nobody can tell");
    hil.down(false);
    hil.freeze(false);
    assert_eq!(world.insist(true).await, Vec::<String>::new());
    assert_eq!(world.networks_of(first), [red, red]);
}

#[tokio::test]
async fn what_is_not_ours_is_told_and_left_alone() {
    let world = World::new();
    let Cast { first, red, .. } = world.cast;
    let driver = world.driver();
    // A NIC that BMI does not know is on a network that BMI did not make.
    world.hil.attach(FIRST, "other", "vlan/native", "storage");
    for said in [driver.attach(first, red).await.unwrap_err(), driver.detach(first, red).await.unwrap_err()] {
        assert!(chain(&said).contains("`storage` on vlan/native of other"), "{}", chain(&said));
    }
    assert_eq!(driver.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    assert_eq!(world.hil.attachments(FIRST).len(), 1);
    world.hil.detach(FIRST);
    driver.attach(first, red).await.unwrap();
    // The network on a second channel as well: all of it goes.
    world.hil.attach(FIRST, "other", "vlan/7", "bmi-red");
    assert_eq!(driver.observe(first, red).await.unwrap(), Attachment::Elsewhere);
    driver.detach(first, red).await.unwrap();
    assert_eq!(world.hil.attachments(FIRST), []);
}

#[tokio::test]
async fn another_machine_under_the_nodes_name_is_not_touched() {
    let world = World::new();
    let Cast { second, red, .. } = world.cast;
    world.hil.node("node-2", &[("em1", "52:54:00:00:00:99")]);
    let driver = world.driver();
    let said = chain(&driver.attach(second, red).await.unwrap_err());
    assert!(said.contains("52:54:00:00:00:03") && said.contains("em1 52:54:00:00:00:99"), "{said}");
    assert!(driver.observe(second, red).await.is_err() && driver.detach(second, red).await.is_err());
    assert!(!world.hil.requests().iter().any(|asked| asked.starts_with("POST")));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    let world = World::new();
    let said = world.driver_of("wrong-password-9182", Duration::from_secs(1));
    let said = chain(&said.attach(world.cast.first, world.cast.red).await.unwrap_err());
    assert!(said.contains("401") && said.contains("AuthorizationError"), "{said}");
    assert!(!said.contains("wrong-password-9182"));
}
