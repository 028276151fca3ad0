//! The kit proves a sound workflow, and finds what is wrong with each of some that were written to be bad.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail, with its place")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bmi_workflow::kit::{Proven, Scenario, prove};
use bmi_workflow::{Claim, Observed, OnFailure, Step, StepError, Workflow};

/// A world in which things are counted.
type World = Arc<Mutex<BTreeMap<&'static str, u32>>>;

/// What is wrong with a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Adds one more each time it is done.
    Accumulates,
    /// Leaves its effect.
    UndoesNothing,
    /// Does in two halves what counts as done after the first, with a wait in between.
    DoneTooEarly,
    /// Its undo fails when there is nothing to undo.
    UndoesOnce,
}

struct Put {
    thing: &'static str,
    flaw: Flaw,
}

fn count(world: &World, thing: &'static str) -> u32 {
    world.lock().unwrap().get(thing).copied().unwrap_or(0)
}

#[async_trait]
impl Step<World> for Put {
    fn name(&self) -> &'static str {
        self.thing
    }

    async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        Ok(if count(world, self.thing) > 0 { Observed::Done } else { Observed::NotDone })
    }

    async fn apply(&self, world: &World) -> Result<(), StepError> {
        if self.flaw == Flaw::DoneTooEarly {
            world.lock().unwrap().insert(self.thing, 1);
            tokio::task::yield_now().await;
            world.lock().unwrap().insert(self.thing, 2);
            return Ok(());
        }
        tokio::task::yield_now().await;
        let already = if self.flaw == Flaw::Accumulates { count(world, self.thing) } else { 1 };
        world.lock().unwrap().insert(self.thing, already + 1);
        Ok(())
    }

    async fn undo(&self, world: &World) -> Result<(), StepError> {
        tokio::task::yield_now().await;
        let removed = match self.flaw {
            Flaw::UndoesNothing => return Ok(()),
            _ => world.lock().unwrap().remove(self.thing),
        };
        if removed.is_none() && self.flaw == Flaw::UndoesOnce {
            return Err(StepError::later("there is nothing to take back"));
        }
        Ok(())
    }
}

struct Puts {
    world: World,
    flaw: Flaw,
    on_failure: OnFailure,
}

#[async_trait]
impl Scenario<World> for Puts {
    fn workflow(&self) -> Workflow<World> {
        let steps: Vec<Box<dyn Step<World>>> = vec![
            Box::new(Put { thing: "cup", flaw: Flaw::None }),
            Box::new(Put { thing: "tea", flaw: self.flaw }),
        ];
        Workflow { kind: "serve", steps, on_failure: self.on_failure }
    }

    fn context(&self, _claim: &Claim) -> World {
        Arc::clone(&self.world)
    }

    async fn faults_after_success(&self) -> Vec<String> {
        let whole = BTreeMap::from([("cup", 2), ("tea", if self.flaw == Flaw::Accumulates { 1 } else { 2 })]);
        let world = self.world.lock().unwrap().clone();
        if world == whole { Vec::new() } else { vec![format!("the world is {world:?}")] }
    }

    async fn faults_after_failure(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        world.iter().map(|(thing, count)| format!("left: {count} {thing}")).collect()
    }
}

async fn proof(flaw: Flaw, on_failure: OnFailure) -> Result<Proven, String> {
    prove(|| async move {
        Arc::new(Puts { world: World::default(), flaw, on_failure }) as Arc<dyn Scenario<World>>
    })
    .await
}

#[tokio::test]
async fn a_sound_workflow_is_proven_and_every_fault_is_counted() {
    let unwinding = Proven {
        happy: 1,
        twice: 2,
        failed: 4,
        stumbled: 2,
        undo_stumbled: 2,
        crashed: 10,
        crashed_after_failure: (5 + 9) * 2,
        cut: 2,
        undo_cut: 2,
    };
    assert_eq!(proof(Flaw::None, OnFailure::Unwind).await, Ok(unwinding));
    assert_eq!(unwinding, Proven::of_steps(2, OnFailure::Unwind));
    let persisting = Proven { undo_stumbled: 0, undo_cut: 0, crashed_after_failure: 9 * 4, ..unwinding };
    assert_eq!(proof(Flaw::None, OnFailure::Persist).await, Ok(persisting));
    assert_eq!(persisting, Proven::of_steps(2, OnFailure::Persist));
}

#[tokio::test]
async fn what_is_wrong_is_found() {
    let found = |proof: Result<Proven, String>| proof.unwrap_err();
    let twice = found(proof(Flaw::Accumulates, OnFailure::Persist).await);
    assert!(twice.contains("Twice") && twice.contains(r#"{"cup": 2, "tea": 2}"#), "{twice}");
    let left = found(proof(Flaw::UndoesNothing, OnFailure::Unwind).await);
    assert!(left.contains("left: 2 tea"), "{left}");
    let early = found(proof(Flaw::DoneTooEarly, OnFailure::Persist).await);
    assert!(early.contains("CutOff(0)") && early.contains(r#""tea": 1"#), "{early}");
    let once = found(proof(Flaw::UndoesOnce, OnFailure::Unwind).await);
    assert!(once.contains("not finished"), "{once}");
}
