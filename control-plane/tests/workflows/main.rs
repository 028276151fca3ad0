//! Every workflow under every fault of the kit, on a real database, with simulated hardware behind the production
//! traits; and the engine as the server runs it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod agent;
mod engine;
mod images;
mod instances;
mod isolation;
mod scenario;
mod simulated;
mod world;
