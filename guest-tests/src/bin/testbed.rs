//! Runs the testbed.
fn main() {}
