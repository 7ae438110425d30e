//! What the rooms below share to test with, and the tables of merging flags over the environment.

use std::ffi::OsString;
use std::sync::{Arc, Mutex};

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command, OutdatedArgs, PushArgs, UpdateArgs, VerifyArgs};
use crate::event::{Event, Reporter};
use crate::problem::Exit;

/// An environment of these variables only, in a directory that does not exist.
pub(super) fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment {
        variables: variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect(),
        directory: "/cwd".into(),
        parallelism: 4,
        stderr_is_terminal: false,
    }
}

/// The flags of a `build` command line.
pub(super) fn typed(flags: &[&str]) -> BuildArgs {
    let line = ["cargo-lambda-image", "build"].iter().chain(flags);
    let Command::Build(args) = Cli::try_parse_from(line).expect("the flags are right").command else {
        panic!("`build` was typed");
    };
    *args
}

/// What a session heard of warnings.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub(super) fn warnings(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

impl Reporter for Heard {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { message, help } = event {
            let help = help.map(|help| format!(" ({help})")).unwrap_or_default();
            self.0.lock().expect("not poisoned").push(format!("{message}{help}"));
        }
    }
}

/// A session whose warnings can be read.
pub(super) fn listening() -> (Session, Heard) {
    let heard = Heard::default();
    (Session::new(Box::new(heard.clone())), heard)
}

fn merged(flags: &[&str], variables: &[(&str, &str)]) -> BuildArgs {
    let environment = environment(variables);
    environment::over_environment(&typed(flags), &environment, &Session::silent()).expect("nothing contradicts")
}

#[test]
fn every_flag_has_a_variable_that_means_the_same() {
    let all = [
        ("PACKAGE", "a\nb", &["-p", "a", "-p", "b"][..]),
        ("WORKSPACE", "true", &["--workspace"]),
        ("BIN", "a", &["--bin", "a"]),
        ("BINARY_PATH", "a/b", &["--binary-path", "a/b"]),
        ("NO_BINARY", "1", &["--no-binary"]),
        ("NAME", "a", &["--name", "a"]),
        ("FEATURES", "a b", &["-F", "a b"]),
        ("ALL_FEATURES", "true", &["--all-features"]),
        ("NO_DEFAULT_FEATURES", "true", &["--no-default-features"]),
        ("RELEASE", "true", &["-r"]),
        ("DEV", "true", &["--dev"]),
        ("PROFILE", "x", &["--profile", "x"]),
        ("ARM64", "true", &["--arm64"]),
        ("X86_64", "true", &["--x86-64"]),
        ("TARGET", "x86_64-unknown-linux-musl", &["--target", "x86_64-unknown-linux-musl"]),
        ("TARGET_DIR", "t", &["--target-dir", "t"]),
        ("CARGO_BUILD", "lambda build", &["--cargo-build", "lambda build"]),
        ("JOBS", "-1", &["-j", "-1"]),
        ("BASE", "scratch", &["--base", "scratch"]),
        ("ASSET", "a:b\n  c\n\n", &["--asset", "a:b", "--asset", "c"]),
        ("NO_ASSETS", "true", &["--no-assets"]),
        ("HANDLER", "-h", &["--handler=-h"]),
        ("ENV", "A=b\nC=", &["--env", "A=b", "--env", "C="]),
        ("ENTRYPOINT", r#"["a"]"#, &["--entrypoint", "a"]),
        ("WORKING_DIRECTORY", "/a", &["--working-directory", "/a"]),
        ("COMPRESSION_LEVEL", "9", &["--compression-level", "9"]),
        ("FORMAT", "docker", &["--format", "docker"]),
        ("ALLOW_SECRETS", "a\nb", &["--allow-secrets", "a", "--allow-secrets", "b"]),
        ("OUTPUT", "oci-dir:x", &["--output", "oci-dir:x"]),
        ("ASSETS_FROM_LOCK", "true", &["--assets-from-lock"]),
        ("NO_CACHE", "true", &["--no-cache"]),
        ("DENY", "warnings\nL070", &["--deny", "warnings", "--deny", "L070"]),
        ("ALLOW", "L070", &["--allow", "L070"]),
        ("MAX_SIZE", "2GB", &["--max-size", "2GB"]),
        ("NO_VERIFY", "true", &["--no-verify"]),
        ("MANIFEST_PATH", "m", &["--manifest-path", "m"]),
        ("LOCKED", "true", &["--locked"]),
        ("OFFLINE", "true", &["--offline"]),
        ("FROZEN", "true", &["--frozen"]),
        ("CONFIG", "a=1", &["--config", "a=1"]),
        ("VERBOSE", "2", &["-vv"]),
        ("QUIET", "true", &["-q"]),
        ("COLOR", "never", &["--color", "never"]),
        ("MESSAGE_FORMAT", "json", &["--message-format", "json"]),
        ("OUTPUT_ENV", "x.env", &["--output-env", "x.env"]),
    ];
    for (name, value, flags) in all {
        let name = format!("CARGO_LAMBDA_IMAGE_{name}");
        assert_eq!(merged(&[], &[(&name, value)]), typed(flags), "{name}");
        assert_ne!(merged(&[], &[(&name, value)]), typed(&[]), "{name}");
        assert_eq!(merged(&[], &[(&name, "")]), typed(&[]), "an empty {name} is none");
    }
    let count = <BuildArgs as clap::Args>::augment_args(clap::Command::new("build")).get_arguments().count();
    assert_eq!(count, all.len(), "a flag is not in the table");
}

#[test]
fn flags_of_the_other_commands_have_variables_too() {
    fn own<A: clap::Args>() -> Vec<String> {
        let names = |command: clap::Command| -> Vec<String> {
            command.get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)).collect()
        };
        let of_build = names(<BuildArgs as clap::Args>::augment_args(clap::Command::new("build")));
        names(A::augment_args(clap::Command::new("x"))).into_iter().filter(|name| !of_build.contains(name)).collect()
    }
    let set = |name: &str, value: &str| environment(&[(&format!("CARGO_LAMBDA_IMAGE_{name}"), value)]);
    let silent = Session::silent();
    let update = |name, value| environment::update_over_environment(&UpdateArgs::default(), &set(name, value), &silent);
    assert!(update("DRY_RUN", "true").expect("right").dry_run);
    assert!(!update("DRY_RUN", "0").expect("right").dry_run);
    assert_eq!(update("BASE", "scratch").expect("right").build, typed(&["--base", "scratch"]));
    let problem = update("DRY_RUN", "perhaps").expect_err("it is wrong");
    assert!(problem.message().contains("CARGO_LAMBDA_IMAGE_DRY_RUN"), "{problem}");
    assert_eq!(own::<UpdateArgs>(), ["dry-run"], "a flag is not tested");

    let outdated =
        |name, value| environment::outdated_over_environment(&OutdatedArgs::default(), &set(name, value), &silent);
    assert_eq!(outdated("TARGET_DIR", "t").expect("right").target_dir, Some("t".into()));
    assert_eq!(outdated("MANIFEST_PATH", "m").expect("right").manifest.manifest_path, Some("m".into()));
    assert!(outdated("OFFLINE", "true").expect("right").manifest.offline);
    assert!(outdated("QUIET", "true").expect("right").talk.quiet);
    assert_eq!(own::<OutdatedArgs>(), Vec::<String>::new(), "a flag is not tested");

    let verify = |typed: VerifyArgs| environment::verify_over_environment(&typed, &set("EXPLAIN", "L058"), &silent);
    let explain = |code: &str| Some(code.to_owned());
    let (nothing, image) = (VerifyArgs::default(), Some("oci:x".to_owned()));
    for (typed, expected) in [
        (nothing.clone(), explain("L058")),
        (VerifyArgs { explain: explain("all"), ..nothing.clone() }, explain("all")),
        (VerifyArgs { image, ..nothing }, None),
    ] {
        assert_eq!(verify(typed).expect("right").explain, expected);
    }
    assert_eq!(own::<VerifyArgs>(), ["explain"], "a flag is not tested");
}

/// The flags of a `push` command line.
fn typed_push(flags: &[&str]) -> PushArgs {
    let line = ["cargo-lambda-image", "push"].iter().chain(flags);
    let Command::Push(args) = Cli::try_parse_from(line).expect("the flags are right").command else {
        panic!("`push` was typed");
    };
    *args
}

#[test]
fn flags_about_functions_have_variables_that_they_outrank() {
    for (flags, variables, expected) in [
        (
            &[][..],
            &[("FUNCTION", "a\nb"), ("ALIAS", "live")][..],
            &["--function", "a", "--function", "b", "--alias", "live"][..],
        ),
        (&[], &[("CREATE_FUNCTION", "true"), ("ROLE", "r")], &["--create-function", "--role", "r"]),
        (&[], &[("MEMORY", "512"), ("TIMEOUT", "9")], &["--memory", "512", "--timeout", "9"]),
        (&[], &[("PUBLISH", "true"), ("WAIT", "20m")], &["--publish", "--wait", "20m"]),
        (&[], &[("NO_FUNCTION", "true")], &["--no-function"]),
        (&["--function", "c"], &[("FUNCTION", "a\nb")], &["--function", "c"]),
        (&["--function", "c"], &[("NO_FUNCTION", "true")], &["--function", "c"]),
        (&["--no-function"], &[("FUNCTION", "a"), ("ALIAS", "live"), ("PUBLISH", "1")], &["--no-function"]),
        (&["--wait", "5"], &[("WAIT", "20m")], &["--wait", "5s"]),
    ] {
        let named: Vec<_> =
            variables.iter().map(|(name, value)| (format!("CARGO_LAMBDA_IMAGE_{name}"), *value)).collect();
        let named: Vec<_> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let merged = environment::push_over_environment(&typed_push(flags), &environment(&named), &Session::silent());
        assert_eq!(merged.expect("nothing contradicts"), typed_push(expected), "{flags:?} over {variables:?}");
    }
}

#[test]
fn what_was_typed_outranks_variables() {
    for (flags, variables, expected) in [
        (&["--base", "a"][..], &[("BASE", "b")][..], &["--base", "a"][..]),
        (&["--asset", "a"], &[("ASSET", "b\nc")], &["--asset", "a"]),
        (&["--env", "A=typed"], &[("ENV", "A=set\nB=set")], &["--env", "A=set", "--env", "B=set", "--env", "A=typed"]),
        (&["--arm64"], &[("TARGET", "x86_64-unknown-linux-gnu")], &["--arm64"]),
        (&["--dev"], &[("PROFILE", "x")], &["--dev"]),
        (&["--profile", "y"], &[("RELEASE", "true")], &["--profile", "y"]),
        (&["--no-binary"], &[("BINARY_PATH", "x"), ("BIN", "b")], &["--no-binary"]),
        (&["--binary-path", "x"], &[("NO_BINARY", "true")], &["--binary-path", "x"]),
        (&["-p", "a"], &[("WORKSPACE", "true")], &["-p", "a"]),
        (&["-q"], &[("VERBOSE", "1")], &["-q"]),
        (&["-j", "1"], &[("NO_CACHE", "false")], &["-j", "1"]),
        (&[], &[("RELEASE", "true"), ("BASE", "b")], &["--release", "--base", "b"]),
    ] {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (format!("CARGO_LAMBDA_IMAGE_{name}"), *value)).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(merged(flags, &variables), typed(expected), "{flags:?} over {variables:?}");
    }
}

#[test]
fn a_malformed_variable_is_named_with_the_reason() {
    for (name, value, why) in [
        ("ASSET", "a\nb:", "there is no destination after `:`; `:.` is /var/task itself"),
        ("ENV", "A", "there is no `=` between name and value"),
        ("COMPRESSION_LEVEL", "10", "10 is not in 0..=9"),
        ("JOBS", "0", "jobs may not be 0"),
        ("MAX_SIZE", "1 TB", "not a whole number of B, KB, MB, GB, KiB, MiB or GiB"),
        ("TARGET", "aarch64-apple-darwin", "Lambda runs Linux on x86-64 and arm64 only; use aarch64-unknown-linux-gnu"),
    ] {
        let name = format!("CARGO_LAMBDA_IMAGE_{name}");
        let environment = environment(&[(&name, value)]);
        let problem = environment::over_environment(&typed(&[]), &environment, &Session::silent())
            .expect_err("the value is malformed");
        assert_eq!((problem.message(), problem.exit()), (&*format!("`{value}` is no value of {name}"), Exit::Usage));
        assert_eq!(problem.causes(), [why]);
        let flag = name["CARGO_LAMBDA_IMAGE_".len()..].to_lowercase().replace('_', "-");
        let help = format!("give it what the flag `--{flag}` takes, as `--help` tells, or unset it");
        assert_eq!(problem.next_step(), Some(help.as_str()));
    }
    let problem = merge_error(&[("CARGO_LAMBDA_IMAGE_FORMAT", "tar")]);
    assert_eq!(problem.next_step(), Some("possible values: oci, docker"));
}

#[test]
fn variables_that_contradict_each_other_are_both_named() {
    let problem =
        merge_error(&[("CARGO_LAMBDA_IMAGE_ARM64", "true"), ("CARGO_LAMBDA_IMAGE_TARGET", "x86_64-unknown-linux-gnu")]);
    assert!(problem.message().contains("CARGO_LAMBDA_IMAGE_ARM64"), "{problem}");
    assert!(problem.message().contains("CARGO_LAMBDA_IMAGE_TARGET"), "{problem}");
}

fn merge_error(variables: &[(&str, &str)]) -> Problem {
    environment::over_environment(&typed(&[]), &environment(variables), &Session::silent()).expect_err("it is wrong")
}

#[test]
fn unknown_variables_are_told_and_those_of_other_commands_are_not() {
    let (session, heard) = listening();
    let environment = environment(&[
        ("CARGO_LAMBDA_IMAGE_ASSETS", "a"),
        ("CARGO_LAMBDA_IMAGE_REPOSITORY", "a"),
        ("CARGO_LAMBDA_IMAGE_BASE", "scratch"),
    ]);
    environment::over_environment(&typed(&[]), &environment, &session).expect("unknown ones are no error");
    assert_eq!(
        heard.warnings(),
        ["unused environment variable CARGO_LAMBDA_IMAGE_ASSETS (did you mean CARGO_LAMBDA_IMAGE_ASSET?)"]
    );
}

#[test]
fn threads_are_counted_as_cargo_counts_jobs() {
    for (jobs, expected) in [
        (None, 4),
        (Some(JobsArg::Default), 4),
        (Some(JobsArg::Count(9)), 9),
        (Some(JobsArg::Count(100_000)), 256),
        (Some(JobsArg::Count(-1)), 3),
        (Some(JobsArg::Count(-9)), 1),
    ] {
        assert_eq!(threads(jobs, 4), expected, "{jobs:?}");
    }
}

#[test]
fn a_source_date_is_digits_only() {
    for (value, expected) in [
        ("0", Some(0)),
        ("1700000000", Some(1_700_000_000)),
        ("253402300799", Some(253_402_300_799)),
        ("253402300800", None),
        ("", None),
        ("+1", None),
        (" 1", None),
        ("1.5", None),
        ("-1", None),
        ("18446744073709551616", None),
    ] {
        let outcome = source_date_epoch(&environment(&[("SOURCE_DATE_EPOCH", value)]));
        assert_eq!(outcome.ok().flatten(), expected, "{value:?}");
    }
    assert_eq!(source_date_epoch(&environment(&[])).ok(), Some(None));
}

#[test]
fn outputs_go_where_they_are_sent_or_beside_the_layout() {
    let (store, directory) = (Path::new("/t/lambda-image"), Path::new("/cwd"));
    for (text, expected) in [
        ("oci-dir", Output::Store),
        ("oci-dir:x", Output::OciDir("/cwd/x".into())),
        ("oci-archive:/x.tar", Output::OciArchive("/x.tar".into())),
        ("oci-archive", Output::OciArchive("/t/lambda-image/app.oci.tar".into())),
        ("docker-archive", Output::DockerArchive("/t/lambda-image/app.docker.tar".into())),
    ] {
        let asked: OutputArg = text.parse().expect("an output");
        assert_eq!(output(Some(&asked), "app", store, directory), expected, "{text}");
    }
    assert_eq!(output(None, "app", store, directory), Output::Store);
}

#[test]
fn only_near_names_are_suggested() {
    for (wrong, expected) in
        [("resise", Some("resize")), ("create_repository", Some("create-repository")), ("zzz", None)]
    {
        assert_eq!(suggest(wrong, ["resize", "create-repository", "api"].into_iter()), expected, "{wrong}");
    }
}
