//! Runs a test again in a process of its own, with another environment: changing one's own is not safe with threads.

use std::path::PathBuf;
use std::process::Command;

use super::tools::tool;

const MARK: &str = "LAMBDA_IMAGE_TEST_CHILD";

/// Variables that would change what a child sees of the network and of AWS.
const CLEARED: [&str; 21] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECR",
    "REGISTRY_AUTH_FILE",
];

/// Whether this process is such a child, which does the work; the parent only prepares and calls [`run`].
pub fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the test of this name (with its module) in a child with these variables, and passes its failure on.
pub fn run(test: &str, environment: &[(&str, &str)]) {
    run_by(Command::new(own_path()), test, environment);
}

/// The same in namespaces of the child's own for mounts and the network, where `script` prepares what it needs.
pub fn run_apart(script: &str, test: &str, environment: &[(&str, &str)]) {
    let mut command = Command::new(tool("unshare"));
    let script = format!("PATH=$PATH:/usr/sbin:/sbin; set -e; {script}; exec \"$@\"");
    command.args(["--mount", "--net", "sh", "-c", &script, "sh"]).arg(own_path());
    run_by(command, test, environment);
}

fn own_path() -> PathBuf {
    std::env::current_exe().expect("this test's own path")
}

fn run_by(mut command: Command, test: &str, environment: &[(&str, &str)]) {
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, "1");
    for name in CLEARED {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
