//! Runs cargo: asks it for the project, and has it compile.
//!
//! Cargo is spoken to only through its command line and its JSON messages. Where a binary lies is what cargo says,
//! never a guess from triple and profile. Nothing here knows what becomes of a binary.

mod moved;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use cargo_metadata::{Artifact, Metadata, MetadataCommand, TargetKind};
use serde::Deserialize;

use self::moved::Destination;
use crate::event::{Event, Session};
use crate::problem::{Exit, Problem, Result};

/// How often a silent cargo is looked after, which bounds how long a request to stop waits.
const POLL: Duration = Duration::from_millis(100);

/// How long the last words of a cargo that has ended are waited for, should another process hold its stderr open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How to ask for the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRequest {
    /// `$CARGO`, or `cargo`.
    pub cargo: PathBuf,
    /// Arguments of `cargo metadata` besides format and colour.
    pub arguments: Vec<OsString>,
    /// The directory to run it in.
    pub directory: PathBuf,
}

/// How to compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileRequest {
    /// `$CARGO`, or `cargo`.
    pub cargo: PathBuf,
    /// The subcommand that builds: `["build"]`, `["zigbuild"]`, `["lambda", "build"]`.
    pub subcommand: Vec<String>,
    /// Its arguments, all but `--message-format`.
    pub arguments: Vec<OsString>,
    /// The directory to run it in.
    pub directory: PathBuf,
    /// Cargo's target directory, below which a subcommand may move what it compiled.
    pub target_directory: PathBuf,
    /// What is expected of it.
    pub expected: Vec<ExpectedBinary>,
    /// Whether what it says on stderr is told as events, instead of going to this process's stderr as it is.
    pub is_heard: bool,
}

/// A binary that cargo is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedBinary {
    /// Cargo's opaque id of the package.
    pub package_id: String,
    /// The package's name.
    pub package: String,
    /// The binary's name.
    pub bin: String,
}

/// The workspace as `cargo metadata` tells it, without dependencies.
///
/// # Errors
/// Class [`Exit::Cargo`] with cargo's own words when cargo fails, or is missing.
pub fn metadata(request: &MetadataRequest) -> Result<Metadata> {
    let output = Command::new(&request.cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--color=never"])
        .args(&request.arguments)
        .current_dir(&request.directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(&request.cargo, error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(signalled(output.status).unwrap_or_else(|| cargo_said(&said)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    MetadataCommand::parse(text)
        .map_err(|error| Problem::new(Exit::Cargo, "could not read what `cargo metadata` printed").because(error))
}

/// Cargo's error as a problem: its last `error:` paragraph's first line, caused by the rest.
fn cargo_said(stderr: &str) -> Problem {
    let text = stderr.rfind("error: ").map_or(stderr, |at| &stderr[at + "error: ".len()..]).trim();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let problem = Problem::new(Exit::Cargo, if first.is_empty() { "`cargo metadata` failed" } else { first });
    let rest = rest.trim().trim_start_matches("Caused by:").trim();
    if let Some(help) = rest.strip_prefix("help: ") {
        return problem.help(help);
    }
    let problem = problem.help("these are cargo's words: `cargo metadata --no-deps` says the same in full");
    if rest.is_empty() { problem } else { problem.because(rest) }
}

/// Compiles, and returns the path of each expected binary in the order they are expected.
///
/// Cargo writes its diagnostics and progress to this process's stderr as ever, unless it is heard; each of its JSON
/// messages becomes an [`Event::CargoMessage`].
///
/// # Errors
/// Class [`Exit::Cargo`], marked as told, when cargo fails: it has said why. A cargo that cannot be run, a command that
/// does not say where the binary is, and the session's request to stop.
pub fn build(request: &CompileRequest, session: &Session) -> Result<Vec<PathBuf>> {
    let shown = format!("cargo {}", request.subcommand.join(" "));
    let destinations: Vec<_> =
        request.expected.iter().map(|expected| Destination::of(&expected.bin, &request.target_directory)).collect();
    let mut child = Command::new(&request.cargo)
        .args(&request.subcommand)
        .arg("--message-format=json-render-diagnostics")
        .args(&request.arguments)
        .current_dir(&request.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if request.is_heard { Stdio::piped() } else { Stdio::inherit() })
        .spawn()
        .map_err(|error| missing(&request.cargo, error))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let last_words = child.stderr.take().map(|stderr| pass_on(stderr, session));
    let mut told = vec![Vec::new(); request.expected.len()];
    let outcome = listen(&lines_of(stdout), session, |line| note_artifact(line, &request.expected, &mut told))
        .and_then(|()| wait(&mut child, session));
    if outcome.is_err() {
        // The child may be gone already; if not, nobody will read its output any more.
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = outcome?;
    if let Some(last_words) = last_words {
        // Nothing is ever sent: the end of the one who could is what is waited for.
        let _ = last_words.recv_timeout(LAST_WORDS);
    }
    if !status.success() {
        session.check()?;
        let failed = Problem::new(Exit::Cargo, format!("`{shown}` failed ({status})"));
        // An external subcommand may be missing, which cargo says; a crash is all that it cannot say.
        return Err(match status.signal() {
            None => failed.already_told(),
            Some(_) => signalled(status).unwrap_or_else(|| failed.help(KILLED)),
        });
    }
    let told = told.into_iter().zip(&request.expected).zip(destinations);
    told.map(|((told, expected), destination)| place(told, &expected.bin, destination, &shown)).collect()
}

/// Where the binary is of which cargo told these places.
fn place(mut told: Vec<PathBuf>, bin: &str, destination: Destination, shown: &str) -> Result<PathBuf> {
    const COMPILE_FIRST: &str = "compile first, then pass the binary's file with `--binary-path FILE`";
    let Some(path) = told.pop() else {
        let message = format!("`{shown}` did not say where it put binary `{bin}`");
        return Err(Problem::failed(message).help(COMPILE_FIRST));
    };
    if !told.is_empty() {
        return Err(Problem::usage(format!("`{shown}` compiled binary `{bin}` for {} targets", told.len() + 1))
            .because("`build.target` of Cargo's configuration lists several, and an image is for one")
            .help("choose one with `--target TRIPLE`, `--x86-64` or `--arm64`"));
    }
    let gone = format!("`{shown}` said that binary `{bin}` is `{}`, and there is no such file", path.display());
    destination.find(path).ok_or_else(|| Problem::failed(gone).help(COMPILE_FIRST))
}

/// Tells what cargo says on stderr by a thread of its own, whose end is that of what is returned.
fn pass_on(stderr: ChildStderr, session: &Session) -> Receiver<()> {
    let (alive, ended) = mpsc::channel();
    let session = session.clone();
    thread::spawn(move || {
        let _alive: Sender<()> = alive;
        for line in BufReader::new(stderr).split(b'\n').map_while(io::Result::ok) {
            session.emit(&Event::CargoSaid { line: &String::from_utf8_lossy(&line) });
        }
    });
    ended
}

/// The lines of cargo's stdout, read by a thread of their own, so that a silent cargo does not hold up a request to
/// stop. The thread is never joined: processes that cargo started may outlive it and keep the pipe open.
fn lines_of(stdout: impl Read + Send + 'static) -> Receiver<io::Result<String>> {
    // Lines are small and handled at once; the bound only keeps a runaway command from filling memory.
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map(|line| String::from_utf8_lossy(&line).into_owned());
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Passes on every message until stdout is closed.
fn listen(lines: &Receiver<io::Result<String>>, session: &Session, mut artifact: impl FnMut(&str)) -> Result<()> {
    loop {
        session.check()?;
        match lines.recv_timeout(POLL) {
            Ok(Ok(line)) if line.trim().is_empty() => {}
            Ok(Ok(line)) => match serde_json::from_str::<Reason>(&line) {
                Ok(message) => {
                    session.emit(&Event::CargoMessage { line: line.trim_end() });
                    if message.reason == "compiler-artifact" {
                        artifact(&line);
                    }
                }
                // Other subcommands say things of their own, which must not get between our data.
                Err(_) => session.emit(&Event::Detail { message: line.trim_end() }),
            },
            Ok(Err(error)) => {
                return Err(Problem::failed("could not read what cargo prints").because(error));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// What every message of cargo has.
#[derive(Deserialize)]
struct Reason {
    reason: String,
}

fn note_artifact(line: &str, expected: &[ExpectedBinary], told: &mut [Vec<PathBuf>]) {
    let Ok(Artifact { package_id, target, executable: Some(executable), .. }) = serde_json::from_str(line) else {
        return;
    };
    if !target.is_kind(TargetKind::Bin) {
        return;
    }
    let executable = executable.into_std_path_buf();
    for (expected, paths) in expected.iter().zip(told) {
        if expected.package_id == package_id.repr && expected.bin == target.name && !paths.contains(&executable) {
            paths.push(executable.clone());
        }
    }
}

/// Waits for a child that has closed its stdout, and so is about to end.
fn wait(child: &mut Child, session: &Session) -> Result<ExitStatus> {
    loop {
        session.check()?;
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(Problem::failed("could not wait for cargo").because(error)),
        }
    }
}

/// The way on from a cargo that somebody else ended: mostly a system without memory.
const KILLED: &str = "if the memory ran out, compile less at once with `-j 1`; the system's log says more (`dmesg`)";

/// The problem of a cargo that a signal from the terminal or a supervisor ended, which then is meant for us as well.
fn signalled(status: ExitStatus) -> Option<Problem> {
    match status.signal()? {
        2 => Some(Problem::new(Exit::Interrupted, "interrupted")),
        15 => Some(Problem::new(Exit::Terminated, "terminated")),
        _ => None,
    }
}

fn missing(cargo: &std::path::Path, error: io::Error) -> Problem {
    Problem::new(Exit::Cargo, format!("could not run `{}`", cargo.display()))
        .because(error)
        .help("install Rust, or set CARGO to cargo's path")
}

#[cfg(test)]
mod tests;
