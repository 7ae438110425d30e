//! Runs an image as Lambda does: podman makes the sandbox, the Runtime Interface Emulator is the service in front.
//!
//! Lambda's user is an unprivileged one and its file system is read-only; an image that counts on more fails here.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{PATIENCE, block_on, lambda_emulator, poll, succeed, tool};

/// What Lambda lets a function have, as far as podman can say it.
const SANDBOX: [&str; 10] = [
    "--network=host",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1000:1000",
    "--user=993:990",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--pull=never",
    "--rm",
    "--name=function",
];

/// Podman's settings, in its storage.
const CONFIGURATION: &str = "containers.conf";

/// Where the emulator is in bases of AWS's.
const EMULATOR_OF_BASE: &str = "/usr/local/bin/aws-lambda-rie";

/// Where it is mounted in images without one.
const EMULATOR_OF_HOST: &str = "/aws-lambda-rie";

/// Podman with storage of its own; all of it ends when dropped.
pub struct Podman {
    storage: TempDir,
}

impl Podman {
    pub fn new() -> Self {
        let storage = TempDir::new().expect("a temporary directory");
        // Else all podmans of a machine share locks in one piece of memory, and each frees those of all when it is new.
        fs::write(storage.path().join(CONFIGURATION), "[engine]\nlock_type = \"file\"\n").expect("a written file");
        Self { storage }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("env");
        command.arg(format!("CONTAINERS_CONF={}", self.storage.path().join(CONFIGURATION).display()));
        command.arg(tool("podman"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime"]);
        command.arg(tool("runc"));
        for (option, below) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.storage.path().join(below));
        }
        command.stdin(Stdio::null());
        command
    }

    /// What `podman` with these arguments prints, run in `directory`.
    pub fn run(&self, directory: &Path, arguments: &[&str]) -> String {
        succeed(self.command().current_dir(directory).args(arguments)).trim().to_owned()
    }

    /// A program that is podman with this storage, behind `enter`, and whose `run` is Lambda's sandbox.
    pub fn script(&self, enter: &str) -> String {
        let command = self.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let podman: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let sandbox: Vec<_> = SANDBOX.into_iter().filter(|it| *it != "--rm" && !it.starts_with("--name")).collect();
        let run = format!("shift; set -- run {} \"$@\"", sandbox.join(" "));
        format!("if [ \"$1\" = run ]; then {run}; fi\nexec {enter} {} \"$@\"", podman.join(" "))
    }

    /// `podman load` of an archive; the loaded image's id.
    pub fn load(&self, archive: &Path) -> String {
        succeed(self.command().args(["load", "--quiet", "--input"]).arg(archive));
        let ids = succeed(self.command().args(["images", "--quiet", "--no-trunc"]));
        let mut ids = ids.lines();
        let id = ids.next().expect("a loaded image").trim_start_matches("sha256:").to_owned();
        assert_eq!(ids.next(), None, "more than one image");
        id
    }

    /// `podman pull` of an image in a layout; its id.
    pub fn pull(&self, layout: &Path, name: &str) -> String {
        // Podman names the image after the path it was told, and names have no upper case: so a short path.
        let directory = layout.file_name().and_then(|name| name.to_str()).expect("a directory with a name");
        let mut command = self.command();
        command.args(["pull", "--quiet", &format!("oci:{directory}:{name}")]);
        succeed(command.current_dir(layout.parent().expect("a directory around it"))).trim().to_owned()
    }

    /// What podman knows of an image.
    pub fn inspect(&self, image: &str) -> Value {
        let text = succeed(self.command().args(["image", "inspect", image]));
        let mut inspected: Value = serde_json::from_str(&text).expect("JSON of podman");
        inspected[0].take()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What is left of it lies in a temporary directory, and a second panic would hide the first.
        let _ = self.command().args(["rm", "--all", "--force", "--time=0"]).output();
    }
}

/// Which emulator runs the image.
#[derive(Debug, Clone, Copy)]
pub enum Emulator {
    /// The one the base brought, as with AWS's bases.
    OfBase,
    /// This machine's, for images that hold nothing but the function.
    OfHost,
}

/// A function that answers.
pub struct Function<'a> {
    podman: &'a Podman,
    process: Child,
    port: u16,
    log: PathBuf,
}

impl<'a> Function<'a> {
    /// Starts the image's own entry point and command under the emulator, on free ports.
    ///
    /// Left to its entry point, AWS's base would start the emulator itself, but on port 8080 only.
    pub fn start(podman: &'a Podman, image: &str, emulator: Emulator) -> Self {
        let config = &podman.inspect(image)["Config"];
        let words = ["Entrypoint", "Cmd"].iter().filter_map(|key| config[key].as_array()).flatten();
        let words: Vec<_> = words.map(|word| word.as_str().expect("a word")).collect();
        let port = free_port();
        let log = podman.storage.path().join("function.log");
        let output = File::create(&log).expect("a log file");
        let mut command = podman.command();
        command.arg("run").args(SANDBOX);
        let entry_point = match emulator {
            Emulator::OfBase => EMULATOR_OF_BASE,
            Emulator::OfHost => {
                let host = lambda_emulator("x86_64");
                command.arg(format!("--volume={}:{EMULATOR_OF_HOST}:ro", host.display()));
                EMULATOR_OF_HOST
            }
        };
        command.arg(format!("--entrypoint={entry_point}")).arg(image);
        command.args(["--runtime-interface-emulator-address", &format!("127.0.0.1:{port}")]);
        command.args(["--runtime-api-address", &format!("127.0.0.1:{}", free_port())]);
        command.args(words).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let process = command.spawn().expect("podman starts");
        let mut function = Self { podman, process, port, log };
        poll("the emulator to listen", || {
            let ended = function.process.try_wait().expect("the state of podman");
            assert!(ended.is_none(), "podman ended: {}", function.log());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        function
    }

    /// Sends an event; the function's answer.
    pub fn invoke(&self, event: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}/2015-03-31/functions/function/invocations", self.port);
        let answered = block_on(async {
            let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("an HTTP client");
            client.post(url).json(event).send().await?.text().await
        });
        let text = answered.unwrap_or_else(|error| panic!("no answer: {error}\n{}", self.log()));
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("the answer is no JSON: {text}\n{}", self.log()))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the function's log")
    }
}

impl Drop for Function<'_> {
    fn drop(&mut self) {
        // Podman's own end does not end the container it watches.
        let _ = self.podman.command().args(["rm", "--force", "--time=0", "function"]).output();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port nobody listens on; the emulator cannot be told to choose one itself.
///
/// It lies below those that the kernel gives to outgoing connections, and no other test of this process gets it, so
/// that it is still free when the emulator wants it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 16_384;
    const COUNT: u16 = 16_384;
    let ours = (std::process::id() % 1024) as u16 * 16;
    let candidates = std::iter::repeat_with(|| FIRST + (ours + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut free = candidates.take(COUNT.into()).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}
