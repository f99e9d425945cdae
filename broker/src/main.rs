//! The `gracchus` program: command line in, exit code out.

fn main() {}
