//! control-plane/cli
fn main() {}
