//! Cargo as a shell script that says what cargo would, or something else.

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
        target_directory: directory.path().join("target"),
        expected: vec![binary("one"), binary("two")],
        is_heard: false,
    };
    (directory, request)
}

/// Files that a compiler made.
struct Made(TempDir);

impl Made {
    fn new(names: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        names.iter().for_each(|name| fs::write(directory.path().join(name), name).expect("written"));
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn artifact(package: &str, bin: &str, kind: &str, executable: &str) -> String {
    format!(
        r#"echo '{{"reason":"compiler-artifact","package_id":"{package}","manifest_path":"/a/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{bin}","src_path":"/a/src/main.rs","edition":"2024","doc":true,"doctest":false,"test":true}},"profile":{{"opt_level":"3","debuginfo":0,"debug_assertions":false,"overflow_checks":false,"test":false}},"features":[],"filenames":[],"executable":"{executable}","fresh":true}}'"#
    )
}

#[test]
fn binaries_are_found_by_package_name_and_kind_in_the_order_expected() {
    let made = Made::new(&["one", "two"]);
    let script = [
        artifact("id#a", "two", "bin", &made.path("two")),
        artifact("id#a", "one", "example", "/t/wrong-kind"),
        artifact("id#b", "one", "bin", "/t/wrong-package"),
        artifact("id#a", "one", "bin", &made.path("one")),
        artifact("id#a", "three", "bin", "/t/three"),
    ];
    let (_directory, request) = fake_cargo(&script.join("\n"));
    let paths = build(&request, &Session::silent()).expect("the build succeeds");
    assert_eq!(paths, [PathBuf::from(made.path("one")), PathBuf::from(made.path("two"))]);
}

#[test]
fn a_binary_that_is_moved_away_is_found_where_cargo_lambda_puts_it() {
    let made = Made::new(&["one", "two"]);
    let script = format!(
        "{}\n{}\nmkdir -p target/lambda/one\n[ ! -e {one} ] || mv {one} target/lambda/one/bootstrap",
        artifact("id#a", "one", "bin", &made.path("one")),
        artifact("id#a", "two", "bin", &made.path("two")),
        one = made.path("one")
    );
    let (directory, request) = fake_cargo(&script);
    let paths = build(&request, &Session::silent()).expect("the build succeeds");
    assert_eq!(paths, [directory.path().join("target/lambda/one/bootstrap"), PathBuf::from(made.path("two"))]);

    let problem = build(&request, &Session::silent()).expect_err("what lies there is of the run before");
    let gone = made.path("one");
    let message = format!("`cargo lambda build` said that binary `one` is `{gone}`, and there is no such file");
    assert_eq!((problem.message(), problem.exit()), (message.as_str(), Exit::Failed));
    assert!(problem.next_step().is_some_and(|help| help.contains("--binary-path")));
}

#[test]
fn a_binary_for_several_targets_needs_a_choice() {
    let made = Made::new(&["x86", "arm", "two"]);
    let artifacts = [("one", "x86"), ("one", "arm"), ("two", "two")];
    let script = artifacts.map(|(bin, file)| artifact("id#a", bin, "bin", &made.path(file)));
    let (_directory, request) = fake_cargo(&script.join("\n"));
    let problem = build(&request, &Session::silent()).expect_err("one of them would be taken by chance");
    assert_eq!(problem.message(), "`cargo lambda build` compiled binary `one` for 2 targets");
    assert_eq!(problem.exit(), Exit::Usage);
    assert!(problem.next_step().is_some_and(|help| help.contains("--target TRIPLE")));
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
    let made = Made::new(&["one"]);
    let (_directory, request) = fake_cargo(&artifact("id#a", "one", "bin", &made.path("one")));
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
    // Whoever runs the tests in the background may ignore SIGINT, and no shell takes that back.
    let (_directory, request) = fake_cargo("exec env --default-signal=INT sh -c 'kill -INT $$'");
    assert_eq!(build(&request, &Session::silent()).expect_err("interrupted").exit(), Exit::Interrupted);
}

#[test]
fn a_cargo_that_was_killed_is_an_error_with_a_way_on() {
    let (_directory, request) = fake_cargo("kill -KILL $$");
    let problem = build(&request, &Session::silent()).expect_err("killed");
    assert_eq!((problem.exit(), problem.is_told()), (Exit::Cargo, false));
    assert_eq!(problem.message(), "`cargo lambda build` failed (signal: 9 (SIGKILL))");
    assert!(problem.next_step().is_some_and(|help| help.contains("`-j 1`")), "{problem:?}");
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
