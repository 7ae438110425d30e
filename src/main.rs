//! Parses, picks a reporter, starts the runtime and turns the outcome into an exit code.

fn main() {}
