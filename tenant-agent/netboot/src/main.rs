//! tenant-agent/netboot
fn main() {}
