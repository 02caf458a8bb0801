//! The `purser` binary.

fn main() {}
