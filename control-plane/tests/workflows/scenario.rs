//! A workflow about to begin in a world, and what the world must look like when it has ended.

use std::sync::Arc;

use async_trait::async_trait;
use bmi_api::{Operation, OperationKind};
use bmi_control_plane::workflows::{self, Context};
use bmi_workflow::kit::{Proven, Scenario, prove};
use bmi_workflow::{Claim, Workflow};

use crate::world::{Facts, World, differences};

/// A workflow about to begin.
pub struct Begun {
    pub world: World,
    pub operation: Operation,
    /// The facts after success.
    pub success: Facts,
    /// The facts after a failure.
    pub failure: Facts,
}

#[async_trait]
impl Scenario<Context> for Begun {
    fn workflow(&self) -> Workflow<Context> {
        workflows::workflow(self.operation.kind)
    }

    fn context(&self, _claim: &Claim) -> Context {
        Context::new(Arc::clone(&self.world.app), self.operation.id)
    }

    async fn faults_after_success(&self) -> Vec<String> {
        differences(&self.success, &self.world.facts().await)
    }

    async fn faults_after_failure(&self) -> Vec<String> {
        differences(&self.failure, &self.world.facts().await)
    }
}

/// Proves the workflow that `begin` begins; nothing may have been skipped.
pub async fn proven<S>(kind: OperationKind, mut begin: impl FnMut() -> S + Send)
where
    S: Future<Output = Begun> + Send,
{
    let (steps, on_failure) = workflows::outline(kind);
    let proof = prove(|| {
        let begun = begin();
        async move {
            let begun = begun.await;
            assert_eq!(begun.operation.kind, kind);
            Arc::new(begun) as Arc<dyn Scenario<Context>>
        }
    });
    assert_eq!(proof.await, Ok(Proven::of_steps(steps.len(), on_failure)), "{kind}");
}
