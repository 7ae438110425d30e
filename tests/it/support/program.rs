//! Runs the real binary in an environment that holds nothing but what a test gives it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_lambda_image::oci::Digest;
use serde_json::Value;

use super::schema;

/// Variables without which neither the program nor the cargo below it finds its way on some machines.
const KEPT: [&str; 5] = ["PATH", "CARGO", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// Most tests build images that nobody could start, of layers that are files and no directories: it is not what they
/// are about. Rules that such images break pass unless a test is [`Program::judged`].
const ALLOWED: &str = "L020\nL022\nL025\nL026\nL050\nL051\nL053\nL054\nL055\nL082";

/// The program about to run.
pub struct Program {
    command: Command,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// `cargo-lambda-image build`, run in `directory`.
    pub fn build(directory: &Path) -> Self {
        Self::of("build", directory).env("CARGO_LAMBDA_IMAGE_ALLOW", ALLOWED)
    }

    /// `cargo-lambda-image push`, run in `directory`.
    pub fn push(directory: &Path) -> Self {
        Self::of("push", directory).env("CARGO_LAMBDA_IMAGE_ALLOW", ALLOWED)
    }

    /// `cargo-lambda-image verify`, run in `directory`.
    pub fn verify(directory: &Path) -> Self {
        Self::of("verify", directory)
    }

    /// Judged by all rules, as users' images are.
    pub fn judged(self) -> Self {
        self.env("CARGO_LAMBDA_IMAGE_ALLOW", "")
    }

    /// `cargo-lambda-image iam-policy`, run in `directory`.
    pub fn policy(directory: &Path) -> Self {
        Self::of("iam-policy", directory)
    }

    /// Another of the program's commands, run in `directory`.
    pub fn of(subcommand: &str, directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-lambda-image"));
        command.arg(subcommand).current_dir(directory).env_clear();
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The caller's own settings must not reach the program: neither Docker's logins nor Cargo's flags.
        let user = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(name).is_none() && user.join(below).is_dir() {
                command.env(name, user.join(below));
            }
        }
        command.env("HOME", directory);
        Self { command }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// Runs it by another program that sets something first and then becomes or watches it: `sh -c`, `strace`.
    pub fn under<A: AsRef<OsStr>>(self, wrapper: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(wrapper);
        command.args(arguments).arg(self.command.get_program()).args(self.command.get_args()).env_clear();
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.command.get_current_dir().expect("a program has its directory"));
        Self { command }
    }

    pub(super) fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let output = self.command.output().expect("the program under test starts");
        let outcome = Outcome {
            code: output.status.code().unwrap_or_else(|| panic!("{:?} died of a signal", self.command)),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        };
        schema::assert_messages(&outcome.stdout);
        assert_next_step(outcome.code, &outcome.stderr);
        outcome
    }

    /// Runs it, and it succeeds; the digests it prints, one a line.
    pub fn succeed(self) -> Vec<Digest> {
        let outcome = self.run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        outcome.stdout.lines().map(|line| line.parse().expect("a digest a line")).collect()
    }
}

/// Whoever meets an error is told what to do next. What cargo said is cargo's, and who ends a run knows what comes
/// next.
pub(super) fn assert_next_step(code: i32, stderr: &str) {
    const OURS: [i32; 3] = [1, 2, 3];
    let tells = ["\nhelp: ", "%0Ahelp: ", "For more information, try '--help'."];
    assert!(!OURS.contains(&code) || tells.iter().any(|it| stderr.contains(it)), "no next step: {stderr}");
}

impl Outcome {
    /// The JSON messages of this reason.
    pub fn messages(&self, reason: &str) -> Vec<Value> {
        let lines = self.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON a line"));
        lines.filter(|message| message["reason"] == reason).collect()
    }
}

/// A JSON document in a file.
pub fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON document at this digest in an OCI layout.
pub fn blob(layout: &Path, digest: &str) -> Value {
    let hex = digest.strip_prefix("sha256:").unwrap_or_else(|| panic!("`{digest}` is no SHA-256 digest"));
    json(&layout.join("blobs/sha256").join(hex))
}
