//! Provision and deprovision with the `hil` isolator before a simulated HIL: what the switches are told, and what happens
//! to a node when they cannot be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmi_api::{NewProject, NodeState, OperationState};
use bmi_control_plane::app;
use bmi_drivers::isolation::{Hil, HilSettings};
use bmi_tests::{HIL_PASSWORD, HIL_USER, HilFault, SimulatedHil};
use bmi_types::{NodeId, Secret};

use crate::instances::inhabited;
use crate::world::{NETWORK, World, admin, name};

/// HIL's name of the node that instances are made on; the other has ours.
const THERE: &str = "r3-u12";

/// A world with an instance on `node-1`, and `node-2` for another.
async fn world() -> (SimulatedHil, World, NodeId) {
    let hil = SimulatedHil::start(&["provisioning-9", "storage"]);
    hil.node("node-1", &[("em1", "52:54:00:00:00:01")]);
    hil.node(THERE, &[("em1", "52:54:00:00:00:02")]);
    let settings = HilSettings {
        url: hil.url(),
        user: HIL_USER.to_owned(),
        password: Secret::new(HIL_PASSWORD.to_owned()),
        ca_file: None,
        channel: "vlan/native".to_owned(),
        request_timeout: Duration::from_millis(500),
        operation_timeout: Duration::from_millis(900),
        nodes: BTreeMap::from([(name("node-2"), THERE.to_owned())]),
        networks: BTreeMap::from([(name(NETWORK), "provisioning-9".to_owned())]),
    };
    let world = World::isolated(|inventory| Arc::new(Hil::new(settings, inventory).unwrap())).await;
    let (world, node) = inhabited(world).await;
    (hil, world, node)
}

fn on_network() -> Vec<(String, String, String)> {
    vec![("em1".to_owned(), "vlan/native".to_owned(), "provisioning-9".to_owned())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hil_attaches_what_is_provisioned_and_detaches_what_is_not() {
    let (hil, world, _) = world().await;
    assert_eq!(hil.attachments("node-1"), on_network(), "the first one's");
    assert_eq!(hil.attachments(THERE), []);
    let provision = world.provision(2).await;
    world.succeed(&provision).await;
    assert_eq!(hil.attachments(THERE), on_network());
    let deprovision = world.deprovision(2).await;
    world.succeed(&deprovision).await;
    assert_eq!(hil.attachments(THERE), []);
    assert_eq!(hil.attachments("node-1"), on_network(), "another's node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_of_hil_fails_once_the_operation_succeeds() {
    for fault in [HilFault::Error, HilFault::LostAnswer, HilFault::ActionFails, HilFault::ActionLies] {
        let (hil, world, _) = world().await;
        hil.faults(&[fault]);
        let provision = world.provision(2).await;
        world.succeed(&provision).await;
        assert_eq!((hil.attachments(THERE), hil.faults_left()), (on_network(), 0), "{fault:?}");
        hil.faults(&[fault]);
        let deprovision = world.deprovision(2).await;
        world.succeed(&deprovision).await;
        assert_eq!((hil.attachments(THERE), hil.faults_left()), (vec![], 0), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hil_cannot_attach_is_given_back_and_is_on_nothing() {
    let (hil, world, node) = world().await;
    let before = world.facts().await;
    // Somebody else has the NIC's channel.
    hil.attach(THERE, "em1", "vlan/native", "storage");
    let provision = world.provision(2).await;
    let stuck = world.get_stuck(&provision).await;
    let told = stuck.error.unwrap();
    assert!(told.contains("`storage` on vlan/native of em1"), "{told}");
    assert_eq!(
        app::node::node_show(&world.app, &admin(), node.to_string()).await.unwrap().state,
        NodeState::InUse
    );
    hil.detach(THERE);
    assert_eq!(world.settle(&provision).await.state, OperationState::Failed);
    assert_eq!((hil.attachments(THERE), world.facts().await), (vec![], before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_detachment_cannot_be_proven_is_stuck_and_not_given_to_the_next() {
    let (hil, world, node) = world().await;
    let provision = world.provision(2).await;
    world.succeed(&provision).await;
    // The switches do not answer: HIL accepts what it is asked for, and nothing comes about.
    hil.freeze(true);
    let deprovision = world.deprovision(2).await;
    let told = world.get_stuck(&deprovision).await.error.unwrap();
    assert!(told.contains("not done with NIC `em1`") || told.contains("already active"), "{told}");
    assert_eq!(hil.attachments(THERE), on_network());

    let shown = app::node::node_show(&world.app, &admin(), node.to_string()).await.unwrap();
    assert_eq!(shown.state, NodeState::InUse);
    app::node::node_release(&world.app, &admin(), node.to_string(), None).await.unwrap_err();
    let other = NewProject { name: name("other"), description: String::new() };
    app::project::project_create(&world.app, &admin(), other).await.unwrap();
    let assigned =
        app::node::node_assign(&world.app, &admin(), node.to_string(), "other".to_owned(), None).await;
    assigned.unwrap_err();

    // HIL has ended meanwhile: nobody can tell, so it stays so.
    hil.down(true);
    let told = world.get_stuck(&deprovision).await.error.unwrap();
    assert!(!told.is_empty());
    hil.down(false);
    hil.freeze(false);
    world.succeed(&deprovision).await;
    assert_eq!(hil.attachments(THERE), []);
    app::node::node_release(&world.app, &admin(), node.to_string(), None).await.unwrap();
    let assigned =
        app::node::node_assign(&world.app, &admin(), node.to_string(), "other".to_owned(), None).await;
    assert_eq!(assigned.unwrap().state, NodeState::Assigned);
}
