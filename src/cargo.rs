//! Runs cargo: asks it for the project, and has it compile.
//!
//! Cargo is spoken to only through its command line and its JSON messages. Where a binary lies is what cargo says, never
//! a guess from triple and profile. Nothing here knows what becomes of a binary.

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
/// Cargo writes its diagnostics and progress to this process's stderr as ever, unless it is heard; each of its JSON messages
/// becomes an [`Event::CargoMessage`].
///
/// # Errors
/// Class [`Exit::Cargo`], marked as told, when cargo fails: it has said why. A cargo that cannot be run, a command that
/// does not say where the binary is, and the session's request to stop.
pub fn build(request: &CompileRequest, session: &Session) -> Result<Vec<PathBuf>> {
    let shown = format!("cargo {}", request.subcommand.join(" "));
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
    let mut found = vec![None; request.expected.len()];
    let outcome = listen(&lines_of(stdout), session, |line| note_artifact(line, &request.expected, &mut found))
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
        return Err(signalled(status).unwrap_or(if status.signal().is_none() {
            failed.already_told()
        } else {
            failed
        }));
    }
    let paths = found.into_iter().zip(&request.expected).map(|(path, expected)| {
        path.ok_or_else(|| {
            Problem::failed(format!("`{shown}` did not say where it put binary `{}`", expected.bin))
                .help("compile first, then pass the binary's file with `--binary-path FILE`")
        })
    });
    paths.collect()
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

fn note_artifact(line: &str, expected: &[ExpectedBinary], found: &mut [Option<PathBuf>]) {
    let Ok(Artifact { package_id, target, executable: Some(executable), .. }) = serde_json::from_str(line) else {
        return;
    };
    if !target.is_kind(TargetKind::Bin) {
        return;
    }
    for (expected, path) in expected.iter().zip(found) {
        if expected.package_id == package_id.repr && expected.bin == target.name {
            *path = Some(executable.clone().into_std_path_buf());
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
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;
    use crate::event::Reporter;

    /// A stand-in for cargo that runs `script`: a shell, for which the subcommand is the script's file. A script made
    /// executable could not be run while another test forks with it open for writing.
    fn fake_cargo(script: &str) -> (TempDir, CompileRequest) {
        let directory = TempDir::new().expect("a temporary directory");
        fs::write(directory.path().join("lambda"), script).expect("the script can be written");
        let binary = |bin: &str| ExpectedBinary { package_id: "id#a".into(), package: "a".into(), bin: bin.into() };
        let request = CompileRequest {
            cargo: "/bin/sh".into(),
            subcommand: vec!["lambda".into(), "build".into()],
            arguments: vec!["--release".into()],
            directory: directory.path().into(),
            expected: vec![binary("one"), binary("two")],
            is_heard: false,
        };
        (directory, request)
    }

    fn artifact(package: &str, bin: &str, kind: &str, executable: &str) -> String {
        format!(
            r#"echo '{{"reason":"compiler-artifact","package_id":"{package}","manifest_path":"/a/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{bin}","src_path":"/a/src/main.rs","edition":"2024","doc":true,"doctest":false,"test":true}},"profile":{{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":false}},"features":[],"filenames":[],"executable":"{executable}","fresh":true}}'"#
        )
    }

    #[test]
    fn binaries_are_found_by_package_name_and_kind_in_the_order_expected() {
        let script = [
            artifact("id#a", "two", "bin", "/t/two"),
            artifact("id#a", "one", "example", "/t/wrong-kind"),
            artifact("id#b", "one", "bin", "/t/wrong-package"),
            artifact("id#a", "one", "bin", "/t/one"),
            artifact("id#a", "three", "bin", "/t/three"),
        ];
        let (_directory, request) = fake_cargo(&script.join("\n"));
        let paths = build(&request, &Session::silent()).expect("the build succeeds");
        assert_eq!(paths, [PathBuf::from("/t/one"), PathBuf::from("/t/two")]);
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Reporter for Lines {
        fn event(&self, event: &Event<'_>) {
            if let Event::CargoMessage { line } | Event::CargoSaid { line } = event {
                self.0.lock().expect("not poisoned").push((*line).to_owned());
            }
        }
    }

    #[test]
    fn only_messages_are_passed_on_as_messages() {
        let lines = Lines::default();
        let script = r#"echo "$1 $2 $3 $4"; echo; echo '{"a":1}'; echo '{"reason":"build-finished","success":true}'"#;
        let (_directory, mut request) = fake_cargo(script);
        request.expected.clear();
        assert_eq!(build(&request, &Session::new(Box::new(lines.clone()))).expect("success"), Vec::<PathBuf>::new());
        assert_eq!(*lines.0.lock().expect("not poisoned"), [r#"{"reason":"build-finished","success":true}"#]);
    }

    #[test]
    fn all_that_a_heard_cargo_says_is_told_though_another_process_keeps_its_stderr() {
        let lines = Lines::default();
        let (_directory, request) = fake_cargo("sleep 9 >/dev/null & printf 'one\\n\\ntwo\\n' >&2; exit 101");
        let started = Instant::now();
        let problem = build(&CompileRequest { is_heard: true, ..request }, &Session::new(Box::new(lines.clone())));
        assert!(problem.expect_err("it failed").is_told());
        assert_eq!(*lines.0.lock().expect("not poisoned"), ["one", "", "two"]);
        assert!(started.elapsed() < Duration::from_secs(9), "the other process is not waited for");
    }

    #[test]
    fn the_subcommand_and_its_arguments_reach_cargo() {
        let (directory, mut request) = fake_cargo(r#"echo "$@" > arguments"#);
        request.expected.clear();
        build(&request, &Session::silent()).expect("success");
        let arguments = fs::read_to_string(directory.path().join("arguments")).expect("cargo ran in the directory");
        assert_eq!(arguments, "build --message-format=json-render-diagnostics --release\n");
    }

    #[test]
    fn a_build_that_fails_has_been_told_by_cargo() {
        let (_directory, request) = fake_cargo("exit 101");
        let problem = build(&request, &Session::silent()).expect_err("it failed");
        assert_eq!((problem.exit(), problem.is_told()), (Exit::Cargo, true));
    }

    #[test]
    fn a_command_that_tells_no_executable_is_an_error_with_a_way_on() {
        let (_directory, request) = fake_cargo(&artifact("id#a", "one", "bin", "/t/one"));
        let problem = build(&request, &Session::silent()).expect_err("binary two is missing");
        assert_eq!(problem.message(), "`cargo lambda build` did not say where it put binary `two`");
        assert!(problem.next_step().is_some_and(|help| help.contains("--binary-path")));
    }

    #[test]
    fn a_request_to_stop_ends_a_silent_cargo() {
        let (_directory, request) = fake_cargo("exec sleep 600");
        let session = Session::silent();
        session.stop(Exit::Terminated);
        assert_eq!(build(&request, &session).expect_err("it was stopped").exit(), Exit::Terminated);
    }

    #[test]
    fn an_interrupt_that_only_cargo_saw_counts_as_ours() {
        let (_directory, request) = fake_cargo("kill -INT $$");
        assert_eq!(build(&request, &Session::silent()).expect_err("interrupted").exit(), Exit::Interrupted);
    }

    #[test]
    fn a_missing_cargo_is_named() {
        let (_directory, mut request) = fake_cargo("");
        request.cargo = "/nowhere/cargo".into();
        let problem = build(&request, &Session::silent()).expect_err("there is none");
        assert_eq!((problem.message(), problem.exit()), ("could not run `/nowhere/cargo`", Exit::Cargo));
    }

    #[test]
    fn cargos_own_error_is_what_is_shown() {
        let problem = cargo_said("warning: x\nerror: failed to parse manifest at `/a`\n\nCaused by:\n  no targets\n");
        assert_eq!(problem.message(), "failed to parse manifest at `/a`");
        assert_eq!(problem.causes(), ["no targets"]);
        let problem = cargo_said("error: manifest path `a` is a directory\nhelp: a/Cargo.toml exists\n");
        assert_eq!((problem.causes().len(), problem.next_step()), (0, Some("a/Cargo.toml exists")));
        assert_eq!(cargo_said("").message(), "`cargo metadata` failed");
    }
}
