//! The workflow engine: operations that survive the death of the process that runs them.
//!
//! An operation is a list of idempotent [`Step`]s and a journal. Where it stands is a pure [`fold`](State) over the
//! journal; what to do next is a pure function of that and the time ([`State::next`]). The [`Engine`] claims an
//! operation by a lease with an epoch, writes its intent to the journal, does one thing, writes the outcome.
//!
//! Deliberately absent: a database (see [`Journal`]), parallel steps, data passed between steps (external names are
//! derived from ids, so each step finds its predecessors' work by looking), and a clock (time is a parameter).
//!
//! Invariants:
//! - Nothing happens in the world before the journal says that it may.
//! - A writer whose epoch is old is refused by the journal: two engines never both work on an operation.
//! - Undo covers every step that may have begun, in reverse order.

mod engine;
mod entry;
mod journal;
pub mod kit;
mod state;
mod step;

pub use engine::{Engine, EngineError, LEASE, Ran};
pub use entry::{Entry, Outcome, Record, Retry};
pub use journal::{Claim, Journal, JournalError, Summary};
pub use state::{Decision, Phase, State, StepView};
pub use step::{Observed, OnFailure, Step, StepError, Workflow};
