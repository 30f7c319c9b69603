//! The `chronik` command.
fn main() {}
