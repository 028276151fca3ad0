//! tenant-agent/target
fn main() {}
