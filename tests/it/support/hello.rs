//! `testdata/hello`, built by the program.
//!
//! Each test has a target directory of its own, so that no image is another test's; what the compiler makes on the way
//! is shared, so that it is made once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::program::Program;
use super::tools::{succeed, target_directory};

/// A directory of this repository's `testdata`.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// `build` of `testdata/hello` with `target` as its target directory.
pub fn build(target: &Path) -> Program {
    of(Program::build(&testdata("hello")), target)
}

/// `verify` of `testdata/hello` with `target` as its target directory.
pub fn verify(target: &Path) -> Program {
    of(Program::verify(&testdata("hello")), target)
}

/// `push` of `testdata/hello` with `target` as its target directory.
pub fn push(target: &Path) -> Program {
    of(Program::push(&testdata("hello")), target)
}

fn of(program: Program, target: &Path) -> Program {
    fetch(&testdata("hello"));
    program
        .judged()
        .args(["--locked", "--target-dir"])
        .arg(target)
        .env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/hello"))
        .env("HOME", target)
}

/// The layout of a target directory.
pub fn layout(target: &Path) -> PathBuf {
    target.join("lambda-image/layout")
}

/// Downloads the dependencies in the caller's own environment: in the program's there may be no way to them.
fn fetch(project: &Path) {
    static FETCHED: OnceLock<()> = OnceLock::new();
    FETCHED.get_or_init(|| {
        succeed(Command::new(env!("CARGO")).args(["fetch", "--quiet", "--locked"]).current_dir(project));
    });
}
