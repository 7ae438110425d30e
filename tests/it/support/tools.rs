//! The tools of others that tests run, and how to wait for them.
//!
//! A missing tool fails the test: one that passes because it did nothing is worse than none.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take to start or to answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The path of an installed program.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps `runc` where the PATH of ordinary users does not look.
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed: `tests/run` installs it and all else the tests need"))
}

/// The directory of cargo-lambda, for the PATH of a cargo that is to know it.
pub fn cargo_lambda() -> PathBuf {
    let directory = target_directory().join("tools");
    let path = directory.join("cargo-lambda");
    assert!(path.is_file(), "there is no `{}`: `tests/run` brings it and all else the tests need", path.display());
    directory
}

/// The Lambda Runtime Interface Emulator for an architecture, by its name in Lambda's API.
pub fn lambda_emulator(architecture: &str) -> PathBuf {
    let path = target_directory().join("tools").join(format!("aws-lambda-rie-{architecture}"));
    assert!(path.is_file(), "there is no `{}`: `tests/run` brings it and all else the tests need", path.display());
    path
}

/// Cargo's target directory of this very build.
pub fn target_directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a directory made by cargo in its own")
}

/// What a command wrote to standard output; the test fails if the command does.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed with {}", show(&output));
    String::from_utf8(output.stdout).unwrap_or_else(|_| panic!("{command:?} wrote no UTF-8"))
}

fn show(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{stdout}{stderr}", output.status)
}

/// Asks until there is an answer; the test fails when there is none for too long.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a future to its end, on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}
