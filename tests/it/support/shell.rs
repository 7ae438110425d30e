//! A user's shell, in which `cargo lambda-image` is the program under test, and what it reaches is made up.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::cloud::{Cloud, KEYS, REGION};
use super::markdown::repository;
use super::proxy::Proxy;
use super::tools::{succeed, target_directory, tool};

/// A shell that begins in an empty directory.
pub struct Shell {
    home: TempDir,
}

impl Shell {
    pub fn new() -> Self {
        let shell = Self { home: TempDir::new().expect("a temporary directory") };
        fs::create_dir_all(shell.path("work")).expect("made");
        fs::create_dir(shell.path("bin")).expect("made");
        symlink(env!("CARGO_BIN_EXE_cargo-lambda-image"), shell.path("bin/cargo-lambda-image")).expect("linked");
        shell
    }

    /// One that reaches AWS, through a proxy. Crates come from where they always do: behind the proxy there is only
    /// AWS.
    pub fn in_cloud(cloud: &Cloud) -> Self {
        Self::behind(&cloud.proxy)
    }

    /// One that reaches what a proxy is.
    pub fn behind(proxy: &Proxy) -> Self {
        let shell = Self::new();
        let keys: String = KEYS.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let (proxy, authority) = (proxy.url(), proxy.authority());
        let way = format!("HTTPS_PROXY={proxy} SSL_CERT_FILE={} {keys}AWS_REGION={REGION}", authority.display());
        let program = env!("CARGO_BIN_EXE_cargo-lambda-image");
        let fetch = "[ ! -f Cargo.toml ] || cargo fetch --quiet";
        shell.provide("cargo-lambda-image", &format!("{fetch}\nexec env {way} {program} \"$@\""));
        for name in ["buildah", "skopeo"] {
            shell.provide(name, &format!("exec env {way} {} \"$@\"", tool(name).display()));
        }
        shell
    }

    /// A path below what the shell lies in; `work` is where it begins.
    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// Puts a program of this text first in the way.
    pub fn provide(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        // Not through a link that is there.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\nset -eu\n{script}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permissions");
    }

    /// What lines as they are pasted print; all of them have to succeed.
    pub fn run(&self, lines: &str) -> String {
        self.run_in("", lines)
    }

    /// The same, beginning in a directory below the first one.
    pub fn run_in(&self, below: &str, lines: &str) -> String {
        let mut command = pasted(lines);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("a path"));
        command.current_dir(self.path("work").join(below)).env("PATH", path);
        // What the compiler makes on the way is shared with other tests, so that it is made once.
        command.env("CARGO_BUILD_BUILD_DIR", target_directory().join("it/hello")).env_remove("CARGO_TARGET_DIR");
        succeed(&mut command)
    }
}

/// The turn of a test whose page begins with `cargo new words`: to cargo these packages are one, so in the build
/// directory they share each would be another's binary.
pub fn turn_of_words() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines as a user's shell runs them in the repository: without what cargo tells its tests.
pub fn pasted(lines: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", lines]).current_dir(repository());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_cargo_s = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_LAMBDA_IMAGE_"];
        if is_cargo_s.iter().any(|prefix| text.starts_with(prefix)) || ["CARGO", "LD_LIBRARY_PATH"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command
}

/// A network with nothing but a loopback in it, so that fixed ports are free there; it ends when dropped.
pub struct Network {
    holder: Child,
}

impl Network {
    pub fn new() -> Self {
        let mut command = Command::new(tool("unshare"));
        command.args(["--net", "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && echo up && exec cat"]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("its pipe")).read_line(&mut line);
        assert!(said.is_ok() && line == "up\n", "no network of its own: root makes one");
        Self { holder }
    }

    /// What a command is put behind to run in it.
    pub fn enter(&self) -> String {
        format!("{} --net=/proc/{}/ns/net", tool("nsenter").display(), self.holder.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
