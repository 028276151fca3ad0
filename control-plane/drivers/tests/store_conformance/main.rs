//! What every data store must do, run against each; and what only the local store has: blocks, files, a full disk.
//!
//! Needs root, since a file system is mounted. What cannot run fails.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking; clippy knows only functions marked as tests"
)]

mod files;
mod mounted;
mod space;
mod suite;

use bmi_drivers::store::SimulatedStore;
use mounted::{Mounted, ROOMY};

#[tokio::test]
async fn the_local_store_conforms() {
    let mounted = Mounted::new(ROOMY);
    suite::run(&mounted.store).await;
    mounted.nothing_is_left();
}

#[tokio::test]
async fn the_simulated_store_conforms() {
    let store = SimulatedStore::new();
    suite::run(&store).await;
    assert_eq!((store.images(), store.volumes()), (Vec::new(), Vec::new()));
}
