//! Provision and deprovision, beside an instance that must stay as it is.

use bmi_api::{Operation, OperationKind};
use bmi_types::{InstanceId, NodeId};

use crate::scenario::{Begun, proven};
use crate::world::{Facts, World};

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
