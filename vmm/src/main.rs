//! Command line of Pinvisor.
fn main() {}
