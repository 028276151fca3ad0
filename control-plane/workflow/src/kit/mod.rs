//! The test kit: proves that a workflow survives what can happen to it.
//!
//! [`prove`] takes a way to build a fresh [`Scenario`] and runs its workflow, on a journal in memory, once per fault
//! that it can think of; [`Proven`] lists them. After each run the scenario answers what the world looks like. A
//! fault that did not happen is an error, so the counts of [`Proven`] follow from the number of steps alone, except
//! those of cuts, which follow from how often a step waits.
//!
//! Deliberately absent: real time. The clock jumps to the next due time.

mod injected;
mod journal;
mod prove;
mod run;

use async_trait::async_trait;

use crate::{Claim, Workflow};

pub use journal::{Crash, MemoryJournal};
pub use prove::{Proven, prove};

/// One world, with one operation on it.
#[async_trait]
pub trait Scenario<C>: Send + Sync {
    /// The workflow under proof.
    fn workflow(&self) -> Workflow<C>;
    /// What its steps work with.
    fn context(&self, claim: &Claim) -> C;
    /// What is wrong with the world after success. Empty when it is whole.
    async fn faults_after_success(&self) -> Vec<String>;
    /// What is left in the world after a failure. Empty when it is as before.
    async fn faults_after_failure(&self) -> Vec<String>;
}
