//! A run of the program that is still going: to be signalled, and watched for how much memory it takes.

use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::program::{Program, assert_next_step};
use super::schema;
use super::tools::{PATIENCE, succeed, tool};

/// The program while it runs.
pub struct Running {
    child: Child,
    peak: JoinHandle<u64>,
    stdout: JoinHandle<String>,
    stderr: Stderr,
}

/// What becomes of what it says on stderr.
enum Stderr {
    /// It is read as it comes.
    Read { so_far: Arc<Mutex<Vec<u8>>>, reader: JoinHandle<()> },
    /// Nobody ever reads it.
    Unread(ChildStderr),
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, if it was not a signal that ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The most memory it had (`VmHWM`), in KiB.
    pub peak_kib: u64,
}

impl Program {
    /// Starts it, in a process group of its own.
    pub fn start(self) -> Running {
        self.start_with(|mut pipe| {
            let so_far = Arc::new(Mutex::new(Vec::new()));
            let shared = Arc::clone(&so_far);
            let reader = thread::spawn(move || {
                let mut part = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut part) {
                    shared.lock().expect("no panic under the lock").extend_from_slice(&part[..count]);
                }
            });
            Stderr::Read { so_far, reader }
        })
    }

    /// Starts it with a pipe for its stderr that nobody ever reads.
    pub fn start_unread(self) -> Running {
        self.start_with(Stderr::Unread)
    }

    fn start_with(self, stderr: fn(ChildStderr) -> Stderr) -> Running {
        let mut command = self.into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the program under test starts");
        let pid = child.id();
        Running {
            stdout: read(child.stdout.take().expect("a pipe")),
            stderr: stderr(child.stderr.take().expect("a pipe")),
            peak: thread::spawn(move || watch(pid)),
            child,
        }
    }

    /// Runs it to its end.
    pub fn watched(self) -> Ended {
        self.start().wait()
    }
}

impl Running {
    /// Sends a signal to the program alone.
    pub fn signal(&self, name: &str) {
        self.kill(name, i64::from(self.child.id()));
    }

    /// Sends a signal to the program and all that it started, as a terminal does.
    pub fn signal_group(&self, name: &str) {
        self.kill(name, -i64::from(self.child.id()));
    }

    /// Sends a signal to the program, which may have ended.
    pub fn signal_or_gone(&self, name: &str) {
        // Nobody has waited for it yet, so its number is still its own.
        drop(Command::new(tool("kill")).args(["-s", name, "--", &self.child.id().to_string()]).output());
    }

    /// Whether it does nothing because of a signal.
    pub fn is_stopped(&self) -> bool {
        self.stat().is_some_and(|fields| fields[0] == "T")
    }

    /// What the kernel says of it, from its state on.
    fn stat(&self) -> Option<Vec<String>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether it has said these words on stderr.
    pub fn has_said(&self, words: &str) -> bool {
        match &self.stderr {
            Stderr::Read { so_far, .. } => {
                String::from_utf8_lossy(&so_far.lock().expect("no panic under the lock")).contains(words)
            }
            Stderr::Unread(_) => false,
        }
    }

    /// How many bytes it has said on stderr that nobody has read.
    pub fn unread_bytes(&self) -> u64 {
        match &self.stderr {
            Stderr::Read { .. } => 0,
            Stderr::Unread(pipe) => rustix::io::ioctl_fionread(pipe).expect("a pipe"),
        }
    }

    fn kill(&self, name: &str, pid: i64) {
        succeed(Command::new(tool("kill")).args(["-s", name, "--", &pid.to_string()]));
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the state of the program").is_some()
    }

    /// Waits for its end; one that takes longer than anything may is killed.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the state of the program") {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().expect("killed");
            }
            thread::park_timeout(Duration::from_millis(1));
        };
        let stdout = self.stdout.join().expect("UTF-8 on stdout");
        let stderr = self.stderr.into_end();
        // What was killed may have got no further than half a line.
        if let Some(code) = status.code() {
            schema::assert_messages(&stdout);
            assert_next_step(code, &stderr);
        }
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr,
            peak_kib: self.peak.join().expect("the watch"),
        }
    }
}

impl Stderr {
    /// All of it, once the program has ended.
    fn into_end(self) -> String {
        match self {
            Self::Read { so_far, reader } => {
                reader.join().expect("the reader");
                let said = std::mem::take(&mut *so_far.lock().expect("no panic under the lock"));
                String::from_utf8(said).expect("UTF-8 on stderr")
            }
            Self::Unread(_) => String::new(),
        }
    }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("UTF-8");
        text
    })
}

/// The kernel keeps the peak, so that only what happens in the last moments can be missed.
fn watch(pid: u32) -> u64 {
    let mut peak = 0;
    while let Some(now) = peak_kib(pid) {
        peak = now;
        thread::park_timeout(Duration::from_millis(2));
    }
    peak
}

/// `VmHWM`, which a process that has ended has no more.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
