//! Node.js with the tools for infrastructure that are npm packages, run where there is no network.
//!
//! `tests/infrastructure/package-lock.json` pins them, `tests/tools.sh` installs them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::program::json;
use super::tools::{target_directory, tool};

/// What a program of Node.js says in `directory`, without a network, an account of AWS, or the caller's settings.
/// It is a path below `directory`, where the packages are in `node_modules`.
pub fn node(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let tools = target_directory().join("tools/infrastructure");
    let program = tools.join("bin/node");
    assert!(program.is_file(), "there is no `{}`: `tests/run` brings it", program.display());
    let packages = directory.join("node_modules");
    if !packages.exists() {
        symlink(tools.join("node_modules"), &packages).expect("linked");
    }
    let mut command = Command::new(tool("unshare"));
    command.arg("--net").arg(program).args(arguments).current_dir(directory).env_clear();
    command.env("HOME", directory).env("CI", "true").env("SLS_TELEMETRY_DISABLED", "1");
    command.envs(environment.iter().copied()).output().expect("unshare starts")
}

/// A program of a package, which may use the network.
pub fn tool_of(path: &str) -> Command {
    let tools = target_directory().join("tools/infrastructure");
    let mut command = Command::new(tools.join("bin/node"));
    command.arg(tools.join("node_modules").join(path));
    command
}

/// What Serverless packages of the `serverless.yml` in `directory`: its template, or what it says instead.
pub fn serverless(directory: &Path) -> Result<Value, String> {
    let output = node(directory, &["node_modules/.bin/serverless", "package"], &[]);
    if output.status.success() {
        return Ok(json(&directory.join(".serverless/cloudformation-template-update-stack.json")));
    }
    Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
