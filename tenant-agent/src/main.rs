//! tenant-agent
fn main() {}
