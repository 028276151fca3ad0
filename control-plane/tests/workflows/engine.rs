//! The engine as the server runs it: on the database's journal, with its own workers.

use std::time::Duration;

use bmi_api::{Code, OperationState, StepState};
use bmi_control_plane::workflows;

use crate::instances::inhabited;
use crate::world::World;

/// Nodes that are provisioned at once.
const NODES: u8 = 12;

async fn finished(world: &World, operations: &[bmi_api::Operation]) {
    for operation in operations {
        let waiting = async {
            while !world.operation(operation).await.state.is_final() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
        let ended = world.operation(operation).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{:?}", ended.error);
        assert!(
            ended.steps.iter().all(|step| step.state == StepState::Done && step.attempts == 1),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_instances_at_once_come_and_go_each_step_done_once() {
    let (world, _) = inhabited(World::new().await).await;
    for number in 3..NODES {
        world.node(number).await;
    }
    let before = world.facts().await;
    let workers = workflows::start(&world.app, "test");
    let mut operations = Vec::new();
    for number in 2..NODES {
        operations.push(world.provision(number).await);
    }
    finished(&world, &operations).await;
    let state = world.hardware.look();
    assert_eq!((state.targets.len(), state.on.len()), (usize::from(NODES) - 1, usize::from(NODES) - 1));
    operations.clear();
    for number in 2..NODES {
        operations.push(world.deprovision(number).await);
    }
    finished(&world, &operations).await;
    assert_eq!(world.facts().await, before);
    workers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_never_answers_fails_the_operation_which_says_so_and_is_stuck_until_it_does() {
    let (world, _) = inhabited(World::new().await).await;
    let before = world.facts().await;
    world.hardware.change(|state| state.power_fails = true);
    let operation = world.provision(2).await;
    // Switching on failed for good; switching off, to take it back, fails as well.
    let stuck = world.get_stuck(&operation).await;
    assert!(stuck.error.as_deref().unwrap().contains("the BMC does not answer"), "{:?}", stuck.error);
    let last = stuck.steps.last().unwrap();
    assert_eq!((last.state, last.code, stuck.code), (StepState::Failed, Some(Code::Unavailable), last.code));
    world.hardware.change(|state| state.power_fails = false);
    let ended = world.settle(&operation).await;
    assert_eq!((ended.state, ended.code), (OperationState::Failed, Some(Code::Unavailable)));
    assert_eq!(world.facts().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agent_holds_a_deprovision_up_until_it_returns() {
    // Steps wait for the agent only this long, so that they fail.
    let (mut world, _) = inhabited(World::waiting(Duration::from_millis(50)).await).await;
    let before = world.facts().await;
    let operation = world.provision(2).await;
    world.succeed(&operation).await;
    world.agent_dies();
    let operation = world.deprovision(2).await;
    let stuck = world.get_stuck(&operation).await;
    assert!(stuck.error.as_deref().unwrap().contains("agent is at generation"), "{:?}", stuck.error);
    assert_eq!(stuck.code, Some(Code::AgentUnavailable));
    let now: Vec<_> =
        stuck.steps.iter().map(|step| (step.name.as_str(), step.state, step.attempts)).collect();
    // Nothing after the step that is blocked has begun: the volume of a target that may still run is not touched.
    assert_eq!(now[..2], [("power-off", StepState::Done, 1), ("withdraw-target", StepState::Running, 6)]);
    assert!(
        now[2..].iter().all(|(_, state, attempts)| (*state, *attempts) == (StepState::Waiting, 0)),
        "{now:?}"
    );
    world.agent_returns();
    world.succeed(&operation).await;
    assert_eq!(world.operation(&operation).await.code, None, "what passed is no failure");
    assert_eq!(world.facts().await, before);
}
