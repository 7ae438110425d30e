//! `action.yml` as a runner of GitHub Actions carries it out: each step in a bash of its own, started as the runner
//! starts it, with the files and variables that it sets. The steps are read out of the file, so that nothing else is
//! tested.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::markdown::repository;
use super::runner::Runner;
use super::tools::tool;
use super::yaml;

/// What the scripts may take for granted: what every runner has. Neither Rust nor the program is among it.
const TOOLS: [&str; 10] = ["bash", "curl", "cut", "env", "grep", "gzip", "mkdir", "mktemp", "rm", "tar"];

/// Where the action is said to come from.
pub const ACTION: &str = "owner/cargo-lambda-image";

/// What `action.yml` says, read once.
static ACTION_FILE: OnceLock<Value> = OnceLock::new();

/// A job that uses the action.
pub struct Composite {
    action: &'static Value,
    inputs: BTreeMap<String, String>,
    environment: BTreeMap<OsString, OsString>,
    directory: TempDir,
    /// The files of the step that ran last.
    pub runner: Runner,
}

/// What became of it.
#[derive(Debug)]
pub struct Ran {
    /// Of the step that failed, else zero.
    pub code: i32,
    /// What the steps printed to stdout, and then what to stderr.
    pub stdout: String,
    pub stderr: String,
    /// The outputs of the action, without those that are empty.
    pub outputs: BTreeMap<String, String>,
    /// What the steps put in front of PATH.
    pub path: Vec<PathBuf>,
}

impl Composite {
    /// A job on a runner without Rust and without the program.
    pub fn new() -> Self {
        let job = Self {
            action: ACTION_FILE.get_or_init(|| yaml::read("action.yml")),
            inputs: BTreeMap::new(),
            environment: BTreeMap::new(),
            directory: TempDir::new().expect("a temporary directory"),
            runner: Runner::new(),
        };
        // A path may hold anything but a colon.
        fs::create_dir(job.temporary()).expect("made");
        fs::create_dir(job.tools()).expect("made");
        for name in TOOLS {
            job.link(name);
        }
        job.link("sha256sum");
        job.env("GITHUB_SERVER_URL", "https://github.com").on("Linux", "X64")
    }

    /// The same on a runner of this system, by the names that GitHub has for it and for the processor.
    pub fn on(self, system: &str, processor: &str) -> Self {
        if system == "macOS" {
            fs::remove_file(self.tools().join("sha256sum")).expect("removed");
            self.link("shasum");
        }
        self.env("RUNNER_OS", system).env("RUNNER_ARCH", processor)
    }

    fn link(&self, name: &str) {
        symlink(tool(name), self.tools().join(name)).expect("linked");
    }

    /// A job on a runner that has the program under test.
    pub fn installed() -> Self {
        let job = Self::new();
        symlink(env!("CARGO_BIN_EXE_cargo-lambda-image"), job.tools().join("cargo-lambda-image")).expect("linked");
        job
    }

    /// A job on a runner where an observer is in the place of the program, and succeeds.
    pub fn observed() -> Self {
        let job = Self::new();
        let (name, version) = ("cargo-lambda-image", env!("CARGO_PKG_VERSION"));
        let script = format!(
            "if [ \"$1\" = --version ]; then echo {name} {version}; else printf '%s\\0' \"$@\" >\"{}\"; fi",
            job.path("arguments").display()
        );
        job.provide(name, &script)
    }

    /// Whether the observer was.
    pub fn was_run(&self) -> bool {
        self.path("arguments").exists()
    }

    /// What the observer was called with.
    pub fn arguments(&self, ran: &Ran) -> Vec<String> {
        let seen = fs::read_to_string(self.path("arguments")).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
        seen.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Says an input; one that the action does not have is refused.
    pub fn with(mut self, input: &str, value: &str) -> Self {
        assert!(self.action["inputs"].get(input).is_some(), "the action has no input `{input}`");
        self.inputs.insert(input.to_owned(), value.to_owned());
        self
    }

    /// A variable of the job.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// A program that is on the runner.
    pub fn provide(self, name: &str, script: &str) -> Self {
        let path = self.tools().join(name);
        // Not through a link that is there.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/bash\nset -eu\n{script}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
        self
    }

    /// A path below what the job lies in.
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// The runner's directory for what lasts as long as a job.
    pub fn temporary(&self) -> PathBuf {
        self.path("runner's temp")
    }

    fn tools(&self) -> PathBuf {
        self.path("tools")
    }

    /// Carries out the steps in a workspace, up to the first that fails.
    pub fn run(&self, workspace: &Path) -> Ran {
        let mut ran =
            Ran { code: 0, stdout: String::new(), stderr: String::new(), outputs: BTreeMap::new(), path: Vec::new() };
        let mut steps = BTreeMap::new();
        for step in self.action["runs"]["steps"].as_array().expect("steps") {
            let output = self.step(step, workspace, &ran.path);
            ran.stdout += std::str::from_utf8(&output.stdout).expect("UTF-8 on stdout");
            ran.stderr += std::str::from_utf8(&output.stderr).expect("UTF-8 on stderr");
            ran.code = output.status.code().expect("no signal");
            if ran.code != 0 {
                break;
            }
            let added = fs::read_to_string(self.path("path")).expect("additions to PATH");
            ran.path.splice(0..0, added.lines().rev().map(PathBuf::from));
            if let Some(id) = step["id"].as_str() {
                steps.insert(id.to_owned(), self.runner.outputs());
            }
        }
        for (name, output) in self.action["outputs"].as_object().expect("outputs") {
            let value = expression(output["value"].as_str().expect("a value")).expect("an expression");
            let [begin, id, middle, of] = value.split('.').collect::<Vec<_>>().try_into().expect("an output of a step");
            assert_eq!((begin, middle), ("steps", "outputs"), "{value}");
            if let Some(value) = steps.get(id).and_then(|outputs| outputs.get(of)) {
                ran.outputs.insert(name.clone(), value.clone());
            }
        }
        ran
    }

    fn step(&self, step: &Value, workspace: &Path, added: &[PathBuf]) -> std::process::Output {
        let keys: Vec<_> = step.as_object().expect("a step").keys().map(String::as_str).collect();
        let known = ["env", "id", "name", "run", "shell", "working-directory"];
        assert!(keys.iter().all(|key| known.contains(key)), "{keys:?}");
        assert_eq!(step["shell"], "bash");
        let run = step["run"].as_str().expect("a script");
        assert!(!run.contains("${{"), "an input is put into a script: {run}");

        self.runner.next_step();
        for (name, text) in [("path", ""), ("script.sh", run)] {
            fs::write(self.path(name), text).expect("written");
        }
        // As the runner's documentation has it, for `shell: bash`.
        let mut bash = Command::new(tool("bash"));
        bash.args(["--noprofile", "--norc", "-e", "-o", "pipefail"]).arg(self.path("script.sh")).env_clear();
        let directory = step["working-directory"].as_str().map(|text| self.evaluated(text));
        bash.current_dir(workspace.join(directory.unwrap_or_default()));
        let path = std::env::join_paths(added.iter().chain([&self.tools()])).expect("no colon in it");
        bash.env("PATH", path).env("HOME", self.directory.path());
        bash.envs(&self.environment).env("CI", "true").env("GITHUB_ACTIONS", "true");
        bash.env("GITHUB_ACTION_PATH", repository()).env("GITHUB_WORKSPACE", workspace);
        bash.env("GITHUB_PATH", self.path("path")).env("RUNNER_TEMP", self.temporary());
        bash.env("GITHUB_OUTPUT", self.runner.path("output")).env("GITHUB_STEP_SUMMARY", self.runner.path("summary"));
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            bash.env(name, self.evaluated(value.as_str().expect("a value")));
        }
        bash.output().expect("bash starts")
    }

    /// A value with its expression, if it is one: those of the action are names and nothing more.
    fn evaluated(&self, text: &str) -> String {
        let Some(name) = expression(text) else { return text.to_owned() };
        if name == "github.action_repository" {
            return ACTION.to_owned();
        }
        let name = name.strip_prefix("inputs.").unwrap_or_else(|| panic!("`{name}` is not known here"));
        let input = self.action["inputs"].get(name).unwrap_or_else(|| panic!("there is no input `{name}`"));
        self.inputs.get(name).cloned().unwrap_or_else(|| input["default"].as_str().unwrap_or_default().to_owned())
    }
}

/// What stands in the braces of a value that is an expression and nothing else.
fn expression(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    assert!(inner.is_some() || !text.contains("${{"), "`{text}` is not only an expression");
    inner
}
