//! `testdata/hello`, built by the program.
//!
//! Each test has a target directory of its own, so that no image is another test's; what the compiler makes on the way
//! is shared, so that it is made once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cargo_lambda_image::lock::FILE_NAME;

use super::program::Program;
use super::tools::{succeed, target_directory};

/// A directory of this repository's `testdata`.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// `build` of `testdata/hello` with `target` as its target directory.
pub fn build(target: &Path) -> Program {
    of(Program::build(&copy("hello", target)), target)
}

/// `push` of `testdata/hello` with `target` as its target directory.
pub fn push(target: &Path) -> Program {
    of(Program::push(&copy("hello", target)), target)
}

fn of(program: Program, target: &Path) -> Program {
    fetch(&testdata("hello"));
    program
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/hello"))
        .env("HOME", target)
}

/// A copy of a project of `testdata` in `target`, with a lock of its own: tests of other bases run at the same time.
pub fn copy(name: &str, target: &Path) -> PathBuf {
    let (from, to) = (testdata(name), target.join(name));
    if !to.is_dir() {
        std::fs::create_dir_all(&to).expect("made");
        for entry in std::fs::read_dir(&from).expect("a project of testdata") {
            let entry = entry.expect("an entry");
            // What users' builds leave there is theirs.
            if entry.file_name() != "target" && entry.file_name() != FILE_NAME {
                succeed(Command::new("cp").arg("-r").arg(entry.path()).arg(&to));
            }
        }
    }
    to
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
