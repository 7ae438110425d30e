//! `testdata/hello`, built by the program.
//!
//! Each test has a target directory of its own, so that no image is another test's; what the compiler makes on the way
//! is shared, so that it is made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cargo_lambda_image::lock::FILE_NAME;

use super::program::Program;
use super::project::Project;
use super::tools::{succeed, target_directory};

/// A directory of this repository's `testdata`.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// `build` of `testdata/hello` with `target` as its target directory.
pub fn build(target: &Path) -> Program {
    of(Program::build(&copy("hello", target)), target)
}

/// `verify` of `testdata/hello` with `target` as its target directory.
pub fn verify(target: &Path) -> Program {
    of(Program::verify(&copy("hello", target)), target)
}

/// `push` of `testdata/hello` with `target` as its target directory.
pub fn push(target: &Path) -> Program {
    of(Program::push(&copy("hello", target)), target)
}

fn of(program: Program, target: &Path) -> Program {
    fetch(&testdata("hello"));
    compiled_there(program.judged().arg("--target-dir").arg(target)).env("HOME", target)
}

/// The program compiles where all projects like `testdata/hello` do, so that their dependencies are compiled once.
fn compiled_there(program: Program) -> Program {
    program.env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/hello"))
}

/// A workspace of two packages, `words` and `meanings`, each a function as `testdata/hello` is, with this table.
pub fn workspace(table: &str) -> Project {
    let hello = |path: &str| fs::read_to_string(testdata("hello").join(path)).expect("a file of hello");
    let manifest = hello("Cargo.toml");
    let section = |begin: &str| {
        let (_, rest) = manifest.split_once(begin).expect("a section of the manifest");
        format!("{begin}{}", rest.split("\n[").next().unwrap_or_default())
    };
    let root = format!(
        "[workspace]\nmembers = [\"words\", \"meanings\"]\nresolver = \"3\"\n{}\n{table}",
        section("[profile.release]")
    );
    let project = Project::new(&[("Cargo.toml", &root), ("Cargo.lock", &hello("Cargo.lock"))]);
    for name in ["words", "meanings"] {
        let package = format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
        project.write(&format!("{name}/Cargo.toml"), format!("{package}{}", section("[dependencies]")));
        project.write(&format!("{name}/src/main.rs"), hello("src/main.rs"));
    }
    project.write("words.sqlite3", fs::read(testdata("hello/words.sqlite3")).expect("the database"));
    succeed(Command::new(env!("CARGO")).args(["fetch", "--quiet"]).current_dir(project.root()));
    project
}

/// `push` of a workspace.
pub fn push_workspace(project: &Project) -> Program {
    compiled_there(project.push())
}

/// A copy of a project of `testdata` in `target`, with a lock of its own: tests of other bases run at the same time.
pub fn copy(name: &str, target: &Path) -> PathBuf {
    static COPIES: AtomicU32 = AtomicU32::new(0);
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
        // By its version cargo tells a package from another of that name: else all copies would be one file under many
        // names in the directory they share, and a test could remove what another's program is about to read.
        let version = format!("version = \"0.1.{}\"", COPIES.fetch_add(1, Ordering::Relaxed));
        let package = format!("name = \"{name}\"\nversion = \"0.1.0\"");
        for file in ["Cargo.toml", "Cargo.lock"].map(|file| to.join(file)) {
            let text = fs::read_to_string(&file).expect("a file of the project");
            fs::write(file, text.replace(&package, &format!("name = \"{name}\"\n{version}"))).expect("written");
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
