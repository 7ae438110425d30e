//! Docker itself: a daemon with storage and a socket of its own, which needs no network and starts no container.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::tools::{poll, succeed, tool};

/// A daemon; it ends when dropped.
pub struct Docker {
    process: Child,
    directory: TempDir,
}

impl Docker {
    /// Starts Debian's `dockerd`, which needs root.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let below = |name: &str| directory.path().join(name);
        let log = below("log");
        let process = Command::new(tool("dockerd"))
            // It looks for containerd by PATH.
            .args(["--storage-driver=vfs", "--iptables=false", "--bridge=none", "--data-root"])
            .arg(below("data"))
            .arg("--exec-root")
            .arg(below("exec"))
            .arg("--pidfile")
            .arg(below("pid"))
            .arg(format!("--host=unix://{}", below("socket").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("dockerd starts");
        let mut docker = Self { process, directory };
        poll("dockerd to listen", || {
            let ended = docker.process.try_wait().expect("the state of dockerd");
            assert!(ended.is_none(), "dockerd ended: {}", fs::read_to_string(&log).unwrap_or_default());
            docker.command().arg("version").output().is_ok_and(|output| output.status.success()).then_some(())
        });
        docker
    }

    /// The client, which speaks to this daemon only and knows no login.
    fn command(&self) -> Command {
        let mut command = Command::new(tool("docker"));
        command.env("DOCKER_HOST", format!("unix://{}", self.directory.path().join("socket").display()));
        // The classic builder: the other one would want to fetch itself.
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.directory.path());
        command
    }

    /// What `docker` with these arguments prints, run in `directory`.
    pub fn run(&self, directory: &Path, arguments: &[&str]) -> String {
        succeed(self.command().current_dir(directory).args(arguments)).trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Asked to end, it ends the containerd it started. A second panic would hide the first.
        let asked = Command::new(tool("kill")).args(["-s", "TERM", &self.process.id().to_string()]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
