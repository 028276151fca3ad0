//! The two larger deployments on one machine, from the first command to the last: what `infra/demo` shows, and what the
//! tests F2 and F3 hold to be so.

mod attacks;
mod flood;
mod inside;
mod neighbour;
mod private;
mod provider;
mod scan;
mod shared;
mod tenant;
mod wire;
mod witness;

use std::time::Instant;

pub use private::private;
pub use shared::shared;

/// How long a node may take to its login prompt, when as many boot at once as here.
const BOOT: std::time::Duration = std::time::Duration::from_secs(600);

/// Tells what happens, and when it did.
#[derive(Debug)]
struct Narrator(Instant);

impl Narrator {
    fn new() -> Self {
        Self(Instant::now())
    }

    #[expect(clippy::print_stdout, reason = "what is shown")]
    fn say(&self, what: &str) {
        println!("[{:3} s] {what}", self.0.elapsed().as_secs());
    }
}
