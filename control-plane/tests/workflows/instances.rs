//! Provision and deprovision, beside an instance that must stay as it is.

use std::time::Duration;

use bmi_api::{Operation, OperationKind};
use bmi_control_plane::app::{Desired, Speaker, desired_state};
use bmi_types::{InstanceId, NodeId};

use crate::scenario::{Begun, proven};
use crate::world::{Facts, NETWORK, World};

/// A world with an instance, and a second node for another.
async fn world() -> (World, NodeId) {
    inhabited(World::new().await).await
}

/// Adds that to a world.
pub async fn inhabited(world: World) -> (World, NodeId) {
    let import = world.import("golden").await;
    world.succeed(&import).await;
    world.node(1).await;
    let bystander = world.provision(1).await;
    world.succeed(&bystander).await;
    let node = world.node(2).await;
    (world, node)
}

/// The facts with an instance on the node, from those without.
async fn with_instance(world: &World, before: &Facts, operation: &Operation, node: NodeId) -> Facts {
    let id: InstanceId = operation.subject.id.parse().unwrap();
    let mut after = before | &world.facts_of_instance(id, node).await;
    after.remove(&format!("node {node} is assigned"));
    after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_survives_every_fault() {
    proven(OperationKind::Provision, || async {
        let (world, node) = world().await;
        let before = world.facts().await;
        let operation = world.provision(2).await;
        let success = with_instance(&world, &before, &operation, node).await;
        Begun { world, operation, success, failure: before }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deprovision_survives_every_fault() {
    proven(OperationKind::Deprovision, || async {
        let (world, _) = world().await;
        let before = world.facts().await;
        let provision = world.provision(2).await;
        world.succeed(&provision).await;
        let operation = world.deprovision(2).await;
        Begun { world, operation, success: before, failure: Facts::new() }
    })
    .await;
}

/// A database that was restored from a backup counts on from there: its numbers say something else than the agent knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_another_history_is_told_anew_and_one_of_this_is_not() {
    let (world, _) = world().await;
    world.agent_dies();
    let state = |known: u64, mark: String| {
        let app = std::sync::Arc::clone(&world.app);
        async move {
            let local = Speaker::Local(NETWORK.parse().unwrap());
            match desired_state(&app, &local, NETWORK, known, &mark, Duration::ZERO).await.unwrap() {
                Desired::State(state) => Some(*state),
                Desired::Unchanged => None,
                Desired::StandBy => panic!("the local agent has the network"),
            }
        }
    };
    let first = state(0, String::new()).await.unwrap();
    assert_eq!(state(first.generation, first.mark.clone()).await, None);
    // An agent that sends no mark is an older one.
    assert_eq!(state(first.generation, String::new()).await, None);
    let told = state(first.generation, "0123".to_owned()).await.unwrap();
    assert!(told.generation > first.generation);
    assert_eq!((&told.instances, &told.mark), (&first.instances, &first.mark));
    assert_eq!(state(told.generation, told.mark.clone()).await, None);
    let later = state(told.generation + 5, told.mark.clone()).await.unwrap();
    assert!(later.generation > told.generation + 5);
}
